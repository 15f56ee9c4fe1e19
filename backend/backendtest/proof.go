package backendtest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

func proofChecks() []check {
	needs := []Capability{Watcher}
	return []check{
		{13, "a Batch comes when nothing changes", needs, checkHeartbeat},
		{13, "AsOf is a time of this process, and goes forward", needs, checkAsOf},
		{13, "AsOf claims nothing that was not delivered", needs, checkAsOfProof},
		{13, "an engine that is cut off proves nothing", needs, checkCutFeed},
	}
}

// checkHeartbeat takes the quickest of several turns, of many where none of the first
// is quick: a loaded machine makes some of them late, not all.
func checkHeartbeat(p *probe) {
	const turns, most = 8, 200
	var last time.Time
	quickest := time.Duration(-1)
	n := 0
	if !p.follow(nil, func(backend.Batch) bool {
		now := time.Now()
		if gap := now.Sub(last); n > 0 && (quickest < 0 || gap < quickest) {
			quickest = gap
		}
		last = now
		n++
		return n > turns && quickest <= backend.HeartbeatEvery || n > most
	}) {
		p.broken("%d batches came in %v without a change, the quickest %v after the one before", n, p.opts.Patience, quickest)
	}
	if quickest > backend.HeartbeatEvery {
		p.broken("of %d batches in a row none came within %v of the one before, the quickest after %v", most, backend.HeartbeatEvery, quickest)
	}
}

func checkAsOf(p *probe) {
	var wrong string
	var last time.Time
	var begun atomic.Int64 // nanoseconds after start, of the first Batch; 0 before it
	start := time.Now()
	ok := p.follow(nil, func(b backend.Batch) bool {
		now := time.Now()
		switch {
		case b.AsOf.IsZero():
			wrong = "a Batch has no AsOf"
		case b.AsOf == b.AsOf.Round(0):
			wrong = "AsOf has no monotonic reading: it would follow the wall clock when that is set"
		case b.AsOf.After(now):
			wrong = fmt.Sprintf("AsOf is %v ahead of the clock", b.AsOf.Sub(now))
		case b.AsOf.Before(last):
			wrong = fmt.Sprintf("AsOf went back by %v", last.Sub(b.AsOf))
		}
		last = b.AsOf
		if begun.Load() == 0 {
			begun.Store(int64(now.Sub(start)))
		}
		// Enough once the feed has proved an instant after its own first Batch.
		return wrong != "" || b.AsOf.Sub(start) > time.Duration(begun.Load())
	})
	if wrong != "" {
		p.broken("%s", wrong)
	}
	if !ok {
		p.broken("within %v no Batch had an AsOf later than the first Batch: the feed proves nothing new", p.opts.Patience)
	}
}

// checkAsOfProof lets writers note when each of their Puts had returned. What had
// returned before an AsOf must have been delivered with it.
func checkAsOfProof(p *probe) {
	type written struct {
		id      backend.ID
		version uint64
		at      time.Time
	}
	const writers, enough = 4, 400
	var mu sync.Mutex // guards pending
	var pending []written
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, writers)
	start := make(chan struct{})
	var once sync.Once
	let := func() { once.Do(func() { close(start) }) }
	defer func() { // a check that ends early leaves no writers behind
		stop.Store(true)
		let()
		wg.Wait()
	}()
	for i := range writers {
		rec := p.create(sample(i))
		wg.Go(func() {
			<-start
			for !stop.Load() {
				v, err := p.store.Put(p.ctx, rec, backend.IfVersion(rec.Version))
				at := time.Now()
				if err != nil {
					errs[i] = err
					return
				}
				rec.Version = v
				mu.Lock()
				pending = append(pending, written{rec.ID, v, at})
				n := len(pending)
				mu.Unlock()
				if n > 200 { // the feed must catch up
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	latest := make(map[backend.ID]uint64)
	checked, batches := 0, 0
	wrong := ""
	ok := p.follow(nil, func(b backend.Batch) bool {
		let()
		for _, c := range b.Changes {
			latest[c.ID] = max(latest[c.ID], c.Version)
		}
		mu.Lock()
		defer mu.Unlock()
		later := pending[:0]
		for _, w := range pending {
			switch {
			case !w.at.Before(b.AsOf):
				later = append(later, w)
			case !b.Reset && latest[w.id] < w.version:
				wrong = fmt.Sprintf("a Batch claims to be as of %v after version %d had been acknowledged, and the latest it has delivered of that record is %d",
					b.AsOf.Sub(w.at), w.version, latest[w.id])
			default:
				checked++
			}
		}
		pending = later
		batches++
		return wrong != "" || checked >= enough && batches > 30
	})
	let()
	stop.Store(true)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		p.broken("a Put failed: %v", err)
	}
	if wrong != "" {
		p.broken("%s", wrong)
	}
	if !ok {
		p.broken("in %v the feed proved %d of the changes that were acknowledged, in %d batches", p.opts.Patience, checked, batches)
	}
}

func checkCutFeed(p *probe) {
	if p.opts.Cut == nil {
		p.Logf("Options.Cut is not set: nothing to test")
		return
	}
	var cutAt atomic.Pointer[time.Time]
	var claimed atomic.Int64
	w := p.watchWith(nil, func(b backend.Batch) error {
		if at := cutAt.Load(); at != nil && b.AsOf.After(*at) {
			claimed.Add(1)
		}
		return nil
	})
	defer w.stop()
	p.begun(w)
	heal := p.opts.Cut(p.t, p.store)
	now := time.Now()
	cutAt.Store(&now)
	pause()
	cutAt.Store(nil)
	heal()
	if claimed.Load() > 0 {
		p.broken("with the engine cut off, %d batches had an AsOf from after the cut", claimed.Load())
	}
	var rec backend.Record
	if !p.eventually(func() bool {
		rec = sample(int(time.Since(now)))
		v, err := p.store.Put(p.ctx, rec, backend.IfAbsent())
		rec.Version = v
		return err == nil
	}) {
		p.broken("the engine is back, and Put still fails")
	}
	p.await(w, "what was written after the cut, or a Reset,", func() bool {
		_, resets := w.count()
		return resets > 0 || w.has(rec.ID, rec.Version)
	})
}
