package backendtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

var errEnough = errors.New("backendtest: seen enough")

// patience bounds every wait for a feed.
const patience = 10 * time.Second

// parallel runs f in n goroutines and waits.
func (s *suite) parallel(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}

// watch follows the feed until enough says so, in this goroutine.
func (s *suite) watch(_ backend.Store, w backend.Watcher, from backend.Token, enough func(backend.Batch) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	err := w.Watch(ctx, from, func(b backend.Batch) error {
		if enough(b) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		s.breaks("R12", "every change is delivered", "waited %v", patience)
	}
	s.is(err, errEnough, "R12", "Watch returns the error of fn")
}

func (s *suite) feed() {
	st := s.open()
	w, ok := capability[backend.Watcher](s, st, "Watcher")
	if !ok {
		return
	}
	// A place in the feed, before the changes.
	s.put(st, sample(0), backend.IfAbsent())
	var start backend.Token
	s.watch(st, w, nil, func(b backend.Batch) bool {
		if len(b.Changes) > 0 || b.Reset {
			s.Error("rule R12 of package backend: a feed from now on begins with no changes and no Reset")
		}
		start = b.Token
		return true
	})
	s.resumed(st, w, start)
	s.live(st, w)
	s.slowReader(st, w)
	s.heartbeat(st, w)
	s.freshness(st, w)
	s.foreignTokens(st, w)
	ctx, cancel := context.WithCancel(s.Context())
	err := w.Watch(ctx, nil, func(backend.Batch) error { cancel(); return nil })
	s.is(err, context.Canceled, "R12", "Watch returns its context's error")
	cancel()
}

// resumed changes things while nobody watches, and resumes.
func (s *suite) resumed(st backend.Store, w backend.Watcher, start backend.Token) {
	want := map[backend.ID]uint64{}
	for i := 1; i <= 20; i++ {
		rec := sample(i)
		rec.Version = s.put(st, rec, backend.IfAbsent())
		if i%2 == 0 {
			rec.Version = s.put(st, rec, backend.IfVersion(rec.Version))
		}
		want[rec.ID] = rec.Version
		if i%5 == 0 {
			s.must(st.Delete(s.Context(), rec.ID, rec.Version), "delete")
			want[rec.ID]++ // above the last
		}
	}
	follow := func(from backend.Token) backend.Token {
		var end backend.Token
		got := map[backend.ID]uint64{}
		s.watch(st, w, from, func(b backend.Batch) bool {
			if b.Reset {
				s.breaks("R12", "a token of this feed, not old, resumes without a Reset")
			}
			for _, c := range b.Changes {
				if c.Version < got[c.ID] {
					s.breaks("R12", "changes of one ID come in version order")
				}
				got[c.ID] = c.Version
			}
			end = b.Token
			for rid, v := range want {
				if got[rid] < v {
					return false
				}
			}
			return true
		})
		return end
	}
	end := follow(start)
	follow(start) // a token can be used again
	rec := sample(50)
	want = map[backend.ID]uint64{rec.ID: s.put(st, rec, backend.IfAbsent())}
	follow(end)
}

// live has writers and several watchers at once; every watcher must see the
// last version of every record.
func (s *suite) live(st backend.Store, w backend.Watcher) {
	const records, writers, watchers = 40, 4, 3
	var mu sync.Mutex
	final := map[backend.ID]uint64{}
	var written atomic.Bool
	var ready, done sync.WaitGroup
	ready.Add(watchers)
	for range watchers {
		done.Go(func() {
			got := map[backend.ID]uint64{}
			first := true
			ctx, cancel := context.WithTimeout(background, patience)
			defer cancel()
			err := w.Watch(ctx, nil, func(b backend.Batch) error {
				if first {
					first = false
					ready.Done()
				}
				for _, c := range b.Changes {
					got[c.ID] = max(got[c.ID], c.Version)
				}
				if b.Reset || !written.Load() {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				for rid, v := range final {
					if got[rid] < v {
						return nil
					}
				}
				return errEnough
			})
			if !errors.Is(err, errEnough) {
				s.Errorf("rule R12 of package backend: every change is delivered to every watcher: %v", err)
			}
		})
	}
	ready.Wait()
	var next atomic.Int64
	s.parallel(writers, func() {
		for i := next.Add(1); i <= records; i = next.Add(1) {
			rec := sample(1000 + int(i))
			v, err := st.Put(background, rec, backend.IfAbsent())
			for range 5 {
				if err == nil {
					v, err = st.Put(background, rec, backend.IfVersion(v))
				}
			}
			if err != nil {
				s.Errorf("put: %v", err)
				return
			}
			mu.Lock()
			final[rec.ID] = v
			mu.Unlock()
		}
	})
	written.Store(true)
	done.Wait()
}

// slowReader blocks in fn while others write: they must not wait for it, and it
// must hear of everything afterwards, or of a Reset.
func (s *suite) slowReader(st backend.Store, w backend.Watcher) {
	const n = 3000
	blocked, release, finished := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	last := make(chan backend.Record, 1)
	ctx, cancel := context.WithTimeout(background, 2*patience)
	defer cancel()
	go func() {
		first := true
		var want *backend.Record
		finished <- w.Watch(ctx, nil, func(b backend.Batch) error {
			if first {
				first = false
				close(blocked)
				<-release
			}
			if want == nil {
				select {
				case rec := <-last:
					want = &rec
				default:
				}
			}
			if b.Reset {
				return errEnough
			}
			for _, c := range b.Changes {
				if want != nil && c.ID == want.ID && c.Version >= want.Version {
					return errEnough
				}
			}
			return nil
		})
	}()
	<-blocked
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		var next atomic.Int64
		s.parallel(64, func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				if _, err := st.Put(background, sample(10_000+int(i)), backend.IfAbsent()); err != nil {
					s.Errorf("put: %v", err)
					return
				}
			}
		})
		rec := sample(99_999)
		v, err := st.Put(background, rec, backend.IfAbsent())
		if err != nil {
			s.Errorf("put: %v", err)
		}
		rec.Version = v
		last <- rec
	}()
	select {
	case <-wrote:
	case <-time.After(2 * patience):
		close(release)
		s.breaks("R14", "a slow fn never delays a writer", "writers hang")
	}
	close(release)
	if err := <-finished; !errors.Is(err, errEnough) {
		s.breaks("R12", "a slow fn hears of everything, or of a Reset", "%v", err)
	}
}

// heartbeat waits for batches while nothing changes.
func (s *suite) heartbeat(st backend.Store, w backend.Watcher) {
	n := 0
	begun := time.Now()
	s.watch(st, w, nil, func(backend.Batch) bool { n++; return n == 10 })
	// Generous: a loaded machine may be late, a feed without a heartbeat never comes.
	if took := time.Since(begun); took > 20*backend.HeartbeatEvery+2*time.Second {
		s.breaks("R13", "a Batch comes at least every HeartbeatEvery", "10 took %v", took)
	}
}

// freshness checks AsOf: a change that returned before it must have been
// delivered.
func (s *suite) freshness(st backend.Store, w backend.Watcher) {
	type change struct {
		rec backend.Record
		at  time.Time
	}
	var mu sync.Mutex
	var changes []change
	var stop atomic.Bool
	var writer sync.WaitGroup
	ready := make(chan struct{})
	writer.Go(func() {
		<-ready
		for i := 0; !stop.Load(); i++ {
			rec := sample(200_000 + i)
			v, err := st.Put(background, rec, backend.IfAbsent())
			if err != nil {
				s.Errorf("put: %v", err)
				return
			}
			rec.Version = v
			mu.Lock()
			changes = append(changes, change{rec, time.Now()})
			mu.Unlock()
			if i%8 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	got := map[backend.ID]uint64{}
	begun, checked, batches := false, 0, 0
	var last time.Time
	s.watch(st, w, nil, func(b backend.Batch) bool {
		if !begun {
			begun = true
			close(ready)
		}
		now := time.Now()
		if b.AsOf.After(now) {
			s.Error("rule R13 of package backend: AsOf is not in the future")
		}
		if !b.AsOf.IsZero() && b.AsOf.Before(last) {
			s.Error("rule R13 of package backend: AsOf does not go back")
		}
		if !b.AsOf.IsZero() {
			last = b.AsOf
		}
		for _, c := range b.Changes {
			got[c.ID] = max(got[c.ID], c.Version)
		}
		mu.Lock()
		defer mu.Unlock()
		for ; checked < len(changes) && changes[checked].at.Before(b.AsOf); checked++ {
			if c := changes[checked]; got[c.rec.ID] < c.rec.Version {
				s.Error("rule R13 of package backend: every change committed before AsOf has been delivered: one was not")
				return true
			}
		}
		batches++
		return batches > 40 && checked > 50
	})
	stop.Store(true)
	writer.Wait()
}

// foreignTokens resumes where this feed has never been.
func (s *suite) foreignTokens(_ backend.Store, w backend.Watcher) {
	other := s.open()
	ow, _ := backend.As[backend.Watcher](other)
	s.put(other, sample(1), backend.IfAbsent())
	var foreign backend.Token
	s.watch(other, ow, nil, func(b backend.Batch) bool { foreign = b.Token; return true })
	for _, token := range []backend.Token{foreign, {}, {1, 2, 3}} {
		reset := false
		s.watch(nil, w, token, func(b backend.Batch) bool { reset = b.Reset; return true })
		if !reset {
			s.breaks("R12", "a token that is not of this feed gets a Reset")
		}
	}
}
