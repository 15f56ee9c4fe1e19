package backendtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
)

func modelChecks() []check {
	return []check{{2, "random operations, compared with the memory store", nil, checkModel}}
}

func checkModel(p *probe) {
	first := p.store
	for n := range uint64(8) {
		if n > 0 {
			p.store = p.fresh(p.t)
		}
		m := &model{probe: p, oracle: memory.New(), seed: p.opts.Seed + n}
		m.rand = rand.New(rand.NewPCG(m.seed, 0)) // operations that can be repeated
		m.run(200)
		_ = m.oracle.Close() // always nil
		if p.store != first {
			p.discard(p.store)
		}
	}
	p.store = first
}

// model runs the same operations on the store and on the memory store. The
// versions of the two differ; what they mean must not.
type model struct {
	*probe
	oracle *memory.Store
	seed   uint64
	rand   *rand.Rand
	ops    []string

	versions [modelRecords][]versionPair // of each record, the oldest first
}

type versionPair struct{ store, oracle uint64 }

const modelRecords = 12

// modelLabels are in order. The one is an owner as well, and another begins like it.
var modelLabels = []string{"one", "one\x00", "red"}

// record is one of few, so that they meet.
func (m *model) record() (int, backend.Record) {
	n := m.rand.IntN(modelRecords)
	rec := sample(n)
	rec.Kind = backend.Kind(1 + n%2)
	rec.Owner = [...]string{"one", "two", ""}[n%3]
	rec.Created = born + int64(n/3)
	if n%4 != 0 {
		rec.Parent = idOf(1000 + n%2)
	}
	rec.Expires = m.rand.Int64N(6)
	rec.PurgeAt = m.rand.Int64N(6)
	for _, label := range modelLabels {
		if m.rand.IntN(3) == 0 {
			rec.Labels = append(rec.Labels, label)
		}
	}
	rec.Body = fmt.Append(nil, m.rand.Uint32())
	return n, rec
}

// version is mostly the current one of record n, sometimes an older one or none.
func (m *model) version(n int) versionPair {
	list := m.versions[n]
	if len(list) == 0 || m.rand.IntN(20) == 0 {
		return versionPair{}
	}
	if m.rand.IntN(4) == 0 {
		return list[m.rand.IntN(len(list))]
	}
	return list[len(list)-1]
}

func (m *model) differ(format string, args ...any) {
	m.Helper()
	last := m.ops[max(0, len(m.ops)-12):]
	m.broken("%s (seed %d, after %d operations, the last of them %s)", fmt.Sprintf(format, args...), m.seed, len(m.ops), strings.Join(last, "; "))
}

// agree fails unless both answered alike.
func (m *model) agree(store, oracle error) {
	m.Helper()
	for _, s := range sentinels {
		if is(oracle, s) {
			if !is(store, s) {
				m.differ("the store answers (%v), the memory store (%v)", store, oracle)
			}
			return
		}
	}
	if store != nil || oracle != nil {
		m.differ("the store answers (%v), the memory store (%v)", store, oracle)
	}
}

func (m *model) op(format string, args ...any) { m.ops = append(m.ops, fmt.Sprintf(format, args...)) }

func (m *model) run(n int) {
	usage, _ := optional[backend.UsageRecorder](m.probe)
	purger, _ := optional[backend.Purger](m.probe)
	for range n {
		switch k := m.rand.IntN(20); {
		case k < 4:
			i, rec := m.record()
			m.op("Put %d IfAbsent (Expires %d, PurgeAt %d, Labels %q)", i, rec.Expires, rec.PurgeAt, rec.Labels)
			m.put(i, rec, backend.IfAbsent(), backend.IfAbsent())
		case k < 10:
			i, rec := m.record()
			v := m.version(i)
			if list := m.versions[i]; len(list) > 0 && v == list[len(list)-1] && m.rand.IntN(15) == 0 {
				rec.Created++ // the only thing that is wrong: nothing says which of two comes first
			}
			m.op("Put %d IfVersion %d (Created %d, Expires %d, PurgeAt %d, Labels %q)", i, v.store, rec.Created, rec.Expires, rec.PurgeAt, rec.Labels)
			m.put(i, rec, backend.IfVersion(v.store), backend.IfVersion(v.oracle))
		case k < 12:
			i, rec := m.record()
			v := m.version(i)
			m.op("Delete %d at version %d", i, v.store)
			m.agree(m.store.Delete(m.ctx, rec.ID, v.store), m.oracle.Delete(m.ctx, rec.ID, v.oracle))
		case k < 15 && usage != nil:
			var batch []backend.Usage
			for range m.rand.IntN(4) {
				batch = append(batch, backend.Usage{ID: idOf(m.rand.IntN(modelRecords)), N: m.rand.Uint64N(3), Last: m.rand.Int64N(100)})
			}
			m.op("AddUsage %d", len(batch))
			m.agree(usage.AddUsage(m.ctx, batch), m.oracle.AddUsage(m.ctx, batch))
		case k < 16 && purger != nil:
			before := time.UnixMilli(m.rand.Int64N(4))
			m.op("Purge before %d", before.UnixMilli())
			got, err := purger.Purge(m.ctx, before, backend.MaxLimit)
			want, wantErr := m.oracle.Purge(m.ctx, before, backend.MaxLimit)
			m.agree(err, wantErr)
			if got != want {
				m.differ("Purge removed %d records, want %d", got, want)
			}
		case k < 17 && m.opts.Reopen != nil && m.rand.IntN(4) == 0:
			m.op("Reopen")
			m.reopen()
			usage, _ = optional[backend.UsageRecorder](m.probe)
			purger, _ = optional[backend.Purger](m.probe)
		case k < 18:
			m.lists()
		default:
			m.gets()
		}
	}
	m.gets()
	m.lists()
}

func (m *model) put(i int, rec backend.Record, store, oracle backend.Cond) {
	m.Helper()
	v, err := m.store.Put(m.ctx, rec, store)
	w, wantErr := m.oracle.Put(m.ctx, rec, oracle)
	m.agree(err, wantErr)
	if err == nil {
		m.versions[i] = append(m.versions[i], versionPair{v, w})
	}
}

// alike compares two records, their versions by what they stand for.
func (m *model) alike(got, want backend.Record) bool {
	if !same(got, want) {
		return false
	}
	for i := range modelRecords {
		if idOf(i) == got.ID {
			return slices.Contains(m.versions[i], versionPair{got.Version, want.Version})
		}
	}
	return false
}

// gets compares all records, and their usage.
func (m *model) gets() {
	m.Helper()
	var all []backend.ID
	for i := range modelRecords {
		all = append(all, idOf(i))
		got, err := m.store.Get(m.ctx, idOf(i))
		want, wantErr := m.oracle.Get(m.ctx, idOf(i))
		m.agree(err, wantErr)
		if err == nil && !m.alike(got, want) {
			m.differ("Get returned %s, want %s", show(got), show(want))
		}
	}
	if u, ok := optional[backend.UsageRecorder](m.probe); ok {
		got, err := u.Usage(m.ctx, all)
		want, _ := m.oracle.Usage(m.ctx, all)
		if err != nil || !slices.Equal(got, want) {
			m.differ("Usage is %v (%v), want %v", got, err, want)
		}
	}
}

// lists compares one list of each sort, in pages of a random size, and how many it has.
func (m *model) lists() {
	m.Helper()
	l, ok := optional[backend.Lister](m.probe)
	if !ok {
		return
	}
	kind := backend.Kind(1 + m.rand.IntN(2))
	for _, q := range []backend.Query{
		{Kind: kind}, {Kind: kind, Owner: "one"}, {Kind: kind, Parent: idOf(1001)}, {Kind: kind, ExpiresBefore: 1 + m.rand.Int64N(6)},
		{Kind: kind, Label: modelLabels[m.rand.IntN(len(modelLabels))]}, {Kind: kind, Label: "one", Newest: true},
		{Kind: kind, Newest: true}, {Kind: kind, Owner: "two", Newest: true}, {Kind: kind, Parent: idOf(1000), Newest: true},
	} {
		if counter, ok := optional[backend.Counter](m.probe); ok {
			most := 1 + m.rand.IntN(modelRecords)
			got, err := counter.Count(m.ctx, q, most)
			want, wantErr := m.oracle.Count(m.ctx, q, most)
			m.agree(err, wantErr)
			if got != want {
				m.differ("Count of the list %s up to %d is %d, want %d", showQuery(q), most, got, want)
			}
		}
		q.Limit = 1 + m.rand.IntN(5)
		got, err := walk(m.ctx, l, q, nil)
		want, wantErr := walk(m.ctx, m.oracle, q, nil)
		m.agree(err, wantErr)
		if !slices.EqualFunc(got, want, m.alike) {
			m.differ("the list %s has %s, want %s", showQuery(q), showIDs(ids(got)), showIDs(ids(want)))
		}
	}
}
