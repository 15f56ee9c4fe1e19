package backendtest

import (
	"errors"
	"math"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

func sweepChecks() []check {
	needs := []Capability{Purger}
	return []check{
		{17, "what is due goes, in bounded batches", needs, checkPurge},
		{17, "usage goes with the record", []Capability{Purger, UsageRecorder}, checkPurgeUsage},
		{17, "PurgeAt moves", needs, checkPurgeAtMoves},
		{17, "PurgeAt moves while Purge runs", needs, checkPurgeRace},
		{17, "limits", needs, checkPurgeLimits},
		{18, "what ends something goes on where space runs out", needs, checkUrgent},
	}
}

// purges fails unless Purge removes n records.
func (p *probe) purges(before time.Time, limit, n int) {
	p.Helper()
	got, err := capability[backend.Purger](p).Purge(p.ctx, before, limit)
	if err != nil || got != n {
		p.broken("Purge(%v, %d) answered (%d, %v), want %d", before, limit, got, err, n)
	}
}

func checkPurge(p *probe) {
	now := time.UnixMilli(born + 1_000_000)
	recs := make([]backend.Record, 90)
	due := 0
	for i := range recs {
		recs[i] = sample(i)
		recs[i].Kind = backend.Kind(1 + i%5)
		recs[i].Expires = 1 // long expired, which is no reason to go
		switch i % 3 {
		case 0: // never
		case 1:
			recs[i].PurgeAt = now.UnixMilli() - int64(i-1)
			due++
		case 2:
			recs[i].PurgeAt = now.UnixMilli() + 1 + int64(i)
		}
	}
	p.fill(recs)
	g := capability[backend.Purger](p)
	gone := 0
	for {
		n, err := g.Purge(p.ctx, now, 7)
		p.answers(err, nil, "Purge")
		if n < 0 || n > 7 {
			p.broken("Purge with limit 7 answered %d", n)
		}
		there := 0
		for _, rec := range recs {
			if _, err := p.store.Get(p.ctx, rec.ID); err == nil {
				there++
			}
		}
		if gone += n; gone != len(recs)-there {
			p.broken("Purge says that %d of %d records went, and %d are left", gone, len(recs), there)
		}
		if n == 0 {
			break
		}
	}
	if gone != due {
		p.broken("Purge removed %d records until nothing was due, want %d", gone, due)
	}
	for i, rec := range recs {
		if i%3 == 1 {
			p.lacks(rec.ID)
			continue
		}
		p.holds(rec)
	}
	if _, ok := optional[backend.Lister](p); ok {
		listed := 0
		for kind := range backend.Kind(5) {
			listed += len(p.walk(backend.Query{Kind: kind + 1}))
		}
		if listed != len(recs)-due {
			p.broken("lists show %d records after a Purge, want %d", listed, len(recs)-due)
		}
	}
}

func checkPurgeUsage(p *probe) {
	u := capability[backend.UsageRecorder](p)
	due, live := sample(1), sample(2)
	due.PurgeAt, live.PurgeAt = born, born+1
	p.create(due)
	p.create(live)
	p.answers(u.AddUsage(p.ctx, []backend.Usage{{ID: due.ID, N: 2, Last: 5}, {ID: live.ID, N: 3, Last: 6}}), nil, "AddUsage")
	p.purges(time.UnixMilli(born), backend.MaxLimit, 1)
	got, err := u.Usage(p.ctx, []backend.ID{due.ID, live.ID})
	p.answers(err, nil, "Usage")
	if got[0] != (backend.Usage{ID: due.ID}) || got[1] != (backend.Usage{ID: live.ID, N: 3, Last: 6}) {
		p.broken("usage after a Purge is %v of the record that went and %v of the one that stayed", got[0], got[1])
	}
}

func checkPurgeAtMoves(p *probe) {
	rec, now := sample(1), time.UnixMilli(born)
	rec.PurgeAt = born
	rec = p.create(rec)
	for _, at := range []int64{born + 1, 0, born + 1000} {
		rec.PurgeAt = at
		rec = p.overwrite(rec)
		p.purges(now, 10, 0)
		p.holds(rec)
	}
	rec.PurgeAt = 1
	rec = p.overwrite(rec)
	p.purges(now, 10, 1)
	p.lacks(rec.ID)
	p.purges(now, 10, 0)
}

// checkPurgeRace moves PurgeAt away beside a Purge, time and again: where the Put
// was acknowledged, the record lives.
func checkPurgeRace(p *probe) {
	const rounds, each = 60, 4
	now := time.UnixMilli(born)
	g := capability[backend.Purger](p)
	for round := range rounds {
		recs := make([]backend.Record, each)
		for i := range recs {
			recs[i] = sample(round*each + i)
			recs[i].PurgeAt = born - int64(i)
		}
		p.fill(recs)
		var purged int
		var purgeErr error
		var wg sync.WaitGroup
		begun := make(chan struct{})
		wg.Go(func() {
			close(begun)
			purged, purgeErr = g.Purge(p.ctx, now, each)
		})
		<-begun
		time.Sleep(time.Duration(round%6) * 20 * time.Microsecond) // the Puts come early in some rounds, late in others
		saved := make([]bool, each)
		err := parallel(each, each, func(i int) error {
			rec := recs[i]
			rec.PurgeAt = [...]int64{0, born + 1, math.MaxInt64}[(round+i)%3]
			_, err := p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
			if is(err, backend.ErrNotFound) {
				return nil
			}
			saved[i] = err == nil
			return err
		})
		wg.Wait()
		if err := errors.Join(err, purgeErr); err != nil {
			p.broken("a Put or a Purge in a race of them failed: %v", err)
		}
		gone := 0
		for i, rec := range recs {
			if !saved[i] {
				gone++
				p.lacks(rec.ID)
				continue
			}
			if _, err := p.store.Get(p.ctx, rec.ID); err != nil {
				p.broken("a record whose PurgeAt had moved past %d went in a Purge(%d): %v", now.UnixMilli(), now.UnixMilli(), err)
			}
		}
		if purged != gone {
			p.broken("Purge says that %d records went, and %d are missing", purged, gone)
		}
	}
}

func checkPurgeLimits(p *probe) {
	rec := sample(1)
	rec.PurgeAt = 1
	rec = p.create(rec)
	for _, limit := range []int{0, -1, backend.MaxLimit + 1} {
		n, err := capability[backend.Purger](p).Purge(p.ctx, time.UnixMilli(born), limit)
		p.answers(err, backend.ErrInvalid, "Purge with limit %d", limit)
		if n != 0 {
			p.broken("a Purge that failed says that %d records went", n)
		}
		p.holds(rec)
	}
	p.purges(time.UnixMilli(born), backend.MaxLimit, 1)
}
