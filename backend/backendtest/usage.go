package backendtest

import (
	"context"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
)

func usageChecks() []check {
	needs := []Capability{UsageRecorder}
	return []check{
		{16, "N adds up and Last moves forward only", needs, checkUsageMerge},
		{16, "answers in the order asked", needs, checkUsageOrder},
		{16, "concurrent additions", needs, checkUsageConcurrent},
		{16, "a batch is whole", needs, checkUsageWhole},
		{16, "usage is apart from records", needs, checkUsageApart},
	}
}

func (p *probe) addUsage(batch ...backend.Usage) {
	p.Helper()
	if err := capability[backend.UsageRecorder](p).AddUsage(p.ctx, batch); err != nil {
		p.broken("AddUsage failed: %v", err)
	}
}

// used fails unless Usage answers exactly this, for the IDs in it.
func (p *probe) used(want ...backend.Usage) {
	p.Helper()
	asked := make([]backend.ID, len(want))
	for i, u := range want {
		asked[i] = u.ID
	}
	got, err := capability[backend.UsageRecorder](p).Usage(p.ctx, asked)
	if err != nil || !slices.Equal(got, want) {
		p.broken("usage is %v (%v), want %v", got, err, want)
	}
}

func checkUsageMerge(p *probe) {
	a, b := idOf(1), idOf(2) // no records: none is needed
	p.used(backend.Usage{ID: a})
	p.addUsage()
	p.addUsage(backend.Usage{ID: a, N: 2, Last: 50}, backend.Usage{ID: b, N: 1, Last: 10}, backend.Usage{ID: a, N: 3, Last: 40})
	p.used(backend.Usage{ID: a, N: 5, Last: 50}, backend.Usage{ID: b, N: 1, Last: 10})
	p.addUsage(backend.Usage{ID: a, N: 1, Last: 30}, backend.Usage{ID: b, Last: 60})
	p.used(backend.Usage{ID: a, N: 6, Last: 50}, backend.Usage{ID: b, N: 1, Last: 60})
	p.addUsage(backend.Usage{ID: a, N: 1 << 40, Last: born}, backend.Usage{ID: a, N: 1, Last: born + 1})
	p.used(backend.Usage{ID: a, N: 1<<40 + 7, Last: born + 1})
	p.addUsage(backend.Usage{ID: a, N: 1}) // a count without a time
	p.used(backend.Usage{ID: a, N: 1<<40 + 8, Last: born + 1})
}

func checkUsageOrder(p *probe) {
	p.used()
	var batch []backend.Usage
	for i := range 500 {
		batch = append(batch, backend.Usage{ID: idOf(i), N: uint64(i + 1), Last: born + int64(i)})
	}
	p.addUsage(batch...)
	slices.Reverse(batch)
	p.used(batch...)
	p.used(batch[3], batch[1], backend.Usage{ID: idOf(9000)}, batch[3], batch[499], backend.Usage{ID: idOf(9001)}, batch[3])
}

func checkUsageConcurrent(p *probe) {
	const n = 300
	u := capability[backend.UsageRecorder](p)
	p.each(n, 16, func(i int) error {
		return u.AddUsage(p.ctx, []backend.Usage{{ID: idOf(1), N: 1, Last: int64(i)}, {ID: idOf(2), N: 2, Last: int64(n - i)}})
	})
	p.used(backend.Usage{ID: idOf(1), N: n, Last: n - 1}, backend.Usage{ID: idOf(2), N: 2 * n, Last: n})
}

// checkUsageWhole ends contexts under AddUsage, and reads while others add: the
// two halves of a batch never part.
func checkUsageWhole(p *probe) {
	u := capability[backend.UsageRecorder](p)
	const size = 100
	var asked []backend.ID
	var batch []backend.Usage
	for i := range size {
		asked = append(asked, idOf(i))
		batch = append(batch, backend.Usage{ID: idOf(i), N: 1, Last: born})
	}
	added, unknown := uint64(0), uint64(0)
	for i := range 60 {
		ctx, cancel := context.WithTimeout(p.ctx, time.Duration(i)*20*time.Microsecond)
		err := u.AddUsage(ctx, batch)
		cancel()
		switch {
		case err == nil:
			added++
		case is(err, backend.ErrIndeterminate):
			unknown++
		case !ofContext(err):
			p.broken("AddUsage whose context ended answered (%v)", err)
		}
		got, err := u.Usage(p.ctx, asked)
		if err != nil || len(got) != size {
			p.broken("Usage of %d IDs answered %d (%v)", size, len(got), err)
		}
		for _, one := range got {
			if one.N != got[0].N {
				p.broken("of a batch whose context ended one part was added (N %d) and another was not (N %d)", one.N, got[0].N)
			}
		}
		if n := got[0].N; n < added || n > added+unknown {
			p.broken("a batch was added %d times after %d that were acknowledged and %d of unknown outcome", n, added, unknown)
		}
	}
}

func checkUsageApart(p *probe) {
	rec, other := p.create(sample(1)), p.create(sample(2))
	p.addUsage(backend.Usage{ID: rec.ID, N: 1, Last: 5}, backend.Usage{ID: other.ID, N: 2, Last: 6})
	p.holds(rec) // nothing of it is in the record, or its version
	rec.Body = []byte("overwritten")
	rec = p.overwrite(rec)
	p.used(backend.Usage{ID: rec.ID, N: 1, Last: 5})
	p.remove(rec)
	p.used(backend.Usage{ID: rec.ID}, backend.Usage{ID: other.ID, N: 2, Last: 6})
	rec = p.create(rec)
	p.used(backend.Usage{ID: rec.ID})
	p.holds(other)
}
