package backendtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

// workers is how many goroutines compete for one record.
const workers = 100

func casChecks() []check {
	return []check{
		{7, "one of 100 creates the record", nil, checkOneCreates},
		{7, "one of 100 overwrites the version", nil, checkOneOverwrites},
		{7, "one of 100 deletes or overwrites the version", nil, checkOneEnds},
		{7, "no update of 100 workers is lost", nil, checkNoLostUpdate},
		{8, "readers see versions rise", nil, checkReadersSeeRise},
		{5, "recorded histories are linearizable", nil, checkHistories},
		{3, "all methods at once", nil, checkAllAtOnce},
		{10, "no answer rests on a batch that failed", nil, checkFailedBatch},
	}
}

// compete makes the workers call do at the same time, and returns what each got.
func compete(do func(worker int) error) []error {
	errs := make([]error, workers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range workers {
		wg.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWins fails unless exactly one error is nil and all others are allowed, and
// returns whose was nil.
func (p *probe) oneWins(errs []error, allowed ...error) int {
	p.Helper()
	winner, winners := -1, 0
	for i, err := range errs {
		if err == nil {
			winner = i
			winners++
			continue
		}
		if !slices.ContainsFunc(allowed, func(want error) bool { return is(err, want) }) {
			p.broken("one that lost against %d others answered (%v), want one of %v", len(errs)-1, err, allowed)
		}
	}
	if winners != 1 {
		p.broken("%d of %d calls with the same condition returned nil", winners, len(errs))
	}
	return winner
}

func checkOneCreates(p *probe) {
	for round := range 5 {
		recs, versions := make([]backend.Record, workers), make([]uint64, workers)
		errs := compete(func(i int) (err error) {
			recs[i] = sample(round)
			recs[i].Owner, recs[i].Body = strconv.Itoa(i), fmt.Append(nil, i)
			versions[i], err = p.store.Put(p.ctx, recs[i], backend.IfAbsent())
			return err
		})
		i := p.oneWins(errs, backend.ErrConflict)
		recs[i].Version = versions[i]
		p.holds(recs[i])
	}
}

func checkOneOverwrites(p *probe) {
	rec := p.create(sample(1))
	for range 5 {
		recs, versions := make([]backend.Record, workers), make([]uint64, workers)
		errs := compete(func(i int) (err error) {
			recs[i] = rec
			recs[i].Body, recs[i].Expires = fmt.Append(nil, i), int64(i)
			versions[i], err = p.store.Put(p.ctx, recs[i], backend.IfVersion(rec.Version))
			return err
		})
		i := p.oneWins(errs, backend.ErrConflict)
		rec = recs[i]
		rec.Version = versions[i]
		p.holds(rec)
	}
}

func checkOneEnds(p *probe) {
	for round := range 5 {
		rec := p.create(sample(round))
		next := rec
		next.Body = []byte("overwritten")
		versions := make([]uint64, workers)
		errs := compete(func(i int) (err error) {
			if i%2 == 0 {
				return p.store.Delete(p.ctx, rec.ID, rec.Version)
			}
			versions[i], err = p.store.Put(p.ctx, next, backend.IfVersion(rec.Version))
			return err
		})
		i := p.oneWins(errs, backend.ErrConflict, backend.ErrNotFound)
		if i%2 == 0 {
			p.lacks(rec.ID)
			continue
		}
		next.Version = versions[i]
		p.holds(next)
	}
}

func checkNoLostUpdate(p *probe) {
	const each = 2
	rec := sample(1)
	rec.Body = make([]byte, 8)
	rec = p.create(rec)
	errs := compete(func(int) error {
		for range each {
			if err := increment(p, rec.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		p.broken("%v", err)
	}
	got, err := p.store.Get(p.ctx, rec.ID)
	p.answers(err, nil, "Get")
	if n := binary.BigEndian.Uint64(got.Body); n != workers*each {
		p.broken("a counter stands at %d after %d acknowledged increments", n, workers*each)
	}
}

// increment adds one to the number in a record's Body, however often others come
// first.
func increment(p *probe, id backend.ID) error {
	for {
		rec, err := p.store.Get(p.ctx, id)
		if err != nil {
			return fmt.Errorf("Get failed: %w", err)
		}
		binary.BigEndian.PutUint64(rec.Body, binary.BigEndian.Uint64(rec.Body)+1)
		_, err = p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
		if !is(err, backend.ErrConflict) {
			return err
		}
	}
}

func checkReadersSeeRise(p *probe) {
	rec := sample(1)
	rec.Body = make([]byte, 8)
	rec = p.create(rec)
	var done atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			for last := uint64(0); !done.Load(); {
				got, err := p.store.Get(p.ctx, rec.ID)
				switch {
				case err != nil:
					errs[i] = fmt.Errorf("Get failed: %w", err)
				case got.Version < last:
					errs[i] = fmt.Errorf("a reader saw version %d and then version %d", last, got.Version)
				}
				if errs[i] != nil {
					return
				}
				last = got.Version
			}
		})
	}
	err := parallel(100, 4, func(int) error { return increment(p, rec.ID) })
	done.Store(true)
	wg.Wait()
	if err := errors.Join(errors.Join(errs...), err); err != nil {
		p.broken("%v", err)
	}
}

// checkHistories records what concurrent callers saw of one record, and holds it
// against the only order in which its versions can have followed each other.
func checkHistories(p *probe) {
	for round := range 3 {
		id := idOf(round)
		base := sample(round)
		first := p.create(base)
		var mu sync.Mutex
		history := []event{{start: -1, write: true, version: first.Version}}
		clock := new(atomic.Int64)
		err := parallel(600, 12, func(i int) error {
			e := event{start: clock.Add(1)}
			rec, err := p.store.Get(p.ctx, id)
			e.end, e.version = clock.Add(1), rec.Version
			if err != nil {
				return fmt.Errorf("Get failed: %w", err)
			}
			events := []event{e}
			if i%3 == 0 {
				w := event{start: clock.Add(1), write: true, over: rec.Version}
				rec.Body = fmt.Append(nil, i)
				w.version, err = p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
				w.end = clock.Add(1)
				switch {
				case is(err, backend.ErrConflict):
					w.write, w.refused = false, true
				case err != nil:
					return fmt.Errorf("Put failed: %w", err)
				}
				events = append(events, w)
			}
			mu.Lock()
			defer mu.Unlock()
			history = append(history, events...)
			return nil
		})
		if err == nil {
			err = linearizable(history)
		}
		if err != nil {
			p.broken("%v", err)
		}
	}
}

// event is one call: a read of version, a write of version over another, or a
// write over a version that was refused as no longer current. start and end are
// readings of one logical clock, before and after the call.
type event struct {
	start, end     int64
	version, over  uint64
	write, refused bool
}

// linearizable says whether the history of one record is one that a single
// register could have had. Versions tell which write a read saw and which one a
// write replaced, so the order of writes is known, and what is left to check is
// that no event contradicts it in time: once an event has ended, everything that
// begins later stands at its place in the order or behind it.
func linearizable(history []event) error {
	next := make(map[uint64]uint64) // version to the one that replaced it
	ended := make(map[uint64]event) // version to its write
	for _, e := range history {
		if !e.write {
			continue
		}
		if _, twice := ended[e.version]; twice {
			return fmt.Errorf("two writes returned version %d", e.version)
		}
		ended[e.version] = e
		if other, twice := next[e.over]; twice {
			return fmt.Errorf("versions %d and %d both replaced version %d", other, e.version, e.over)
		}
		next[e.over] = e.version
	}
	place := make(map[uint64]int) // version to its place in the order of writes
	for v, at := next[0], 1; v != 0 && place[v] == 0; v, at = next[v], at+1 {
		place[v] = at
	}
	if len(place) != len(ended) {
		return fmt.Errorf("of %d writes only %d follow one from another", len(ended), len(place))
	}

	type moment struct {
		at  int64
		of  *event
		end bool
	}
	var moments []moment
	for i := range history {
		e := &history[i]
		if e.refused {
			w, known := ended[e.over]
			n, replaced := next[e.over]
			if known && w.end < e.start && (!replaced || ended[n].start > e.end) {
				return fmt.Errorf("a Put IfVersion(%d) was refused while that version was current all along", e.over)
			}
			continue
		}
		if place[e.version] == 0 {
			return fmt.Errorf("a read returned version %d, which no write had returned", e.version)
		}
		moments = append(moments, moment{e.start, e, false}, moment{e.end, e, true})
	}
	slices.SortFunc(moments, func(a, b moment) int { return int(a.at - b.at) })
	reached, by := 0, uint64(0)
	for _, m := range moments {
		at := place[m.of.version]
		switch {
		case m.end:
			if at > reached {
				reached, by = at, m.of.version
			}
		case at < reached && !m.of.write:
			return fmt.Errorf("a read that began after version %d had been written or read returned the older version %d", by, m.of.version)
		case at <= reached && m.of.write:
			return fmt.Errorf("version %d was written or read by a call that ended before the write of version %d began", by, m.of.version)
		}
	}
	return nil
}

// checkAllAtOnce is for the race detector above all.
func checkAllAtOnce(p *probe) {
	lister, _ := optional[backend.Lister](p)
	usage, _ := optional[backend.UsageRecorder](p)
	purger, _ := optional[backend.Purger](p)
	var watches []*watch
	if _, ok := optional[backend.Watcher](p); ok {
		for range 3 {
			watches = append(watches, p.watch(nil))
		}
	}
	live := p.create(sample(1000))
	p.each(400, 16, func(i int) error {
		rec := sample(i % 20)
		rec.PurgeAt = born
		_, err := p.store.Put(p.ctx, rec, backend.IfAbsent())
		if err != nil && !is(err, backend.ErrConflict) {
			return fmt.Errorf("Put failed: %w", err)
		}
		rec, err = p.store.Get(p.ctx, rec.ID)
		if err != nil {
			if !is(err, backend.ErrNotFound) {
				return fmt.Errorf("Get failed: %w", err)
			}
			return nil
		}
		rec.Expires = int64(i)
		v, err := p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
		if err == nil && i%5 == 0 {
			err = p.store.Delete(p.ctx, rec.ID, v)
		}
		if err != nil && !is(err, backend.ErrConflict) && !is(err, backend.ErrNotFound) {
			return fmt.Errorf("Put or Delete failed: %w", err)
		}
		if lister != nil {
			if _, err := lister.List(p.ctx, backend.Query{Kind: 1, Owner: "owner", Limit: 5}); err != nil {
				return fmt.Errorf("List failed: %w", err)
			}
		}
		if usage != nil {
			if err := usage.AddUsage(p.ctx, []backend.Usage{{ID: rec.ID, N: 1, Last: int64(i)}}); err != nil {
				return fmt.Errorf("AddUsage failed: %w", err)
			}
			if _, err := usage.Usage(p.ctx, []backend.ID{rec.ID}); err != nil {
				return fmt.Errorf("Usage failed: %w", err)
			}
		}
		if purger != nil && i%7 == 0 {
			if _, err := purger.Purge(p.ctx, time.UnixMilli(born), 3); err != nil {
				return fmt.Errorf("Purge failed: %w", err)
			}
		}
		return nil
	})
	p.holds(live)
	for _, w := range watches {
		w.stop()
	}
}
