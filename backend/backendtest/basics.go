package backendtest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

func (s *suite) basics() {
	st, ctx := s.open(), s.Context()
	_, err := st.Get(ctx, id(1))
	s.is(err, backend.ErrNotFound, "R5", "Get of a record that is not there is ErrNotFound")
	_, err = st.Put(ctx, sample(1), backend.IfVersion(1))
	s.is(err, backend.ErrNotFound, "R10", "Put IfVersion of a record that is not there is ErrNotFound")
	s.is(st.Delete(ctx, id(1), 1), backend.ErrNotFound, "R10", "Delete of a record that is not there is ErrNotFound")

	rec := sample(1)
	v1 := s.put(st, rec, backend.IfAbsent())
	rec.Version = v1
	s.same(s.get(st, rec.ID), rec, "R2", "Get returns what was Put, and its version")
	_, err = st.Put(ctx, rec, backend.IfAbsent())
	s.is(err, backend.ErrConflict, "R10", "Put IfAbsent of a record that is there is ErrConflict")
	_, err = st.Put(ctx, rec, backend.IfVersion(v1+1))
	s.is(err, backend.ErrConflict, "R10", "Put IfVersion of another version is ErrConflict")
	s.same(s.get(st, rec.ID), rec, "R10", "a Put whose condition failed changes nothing")

	next := rec
	next.Body, next.Expires, next.PurgeAt, next.Version = []byte("next"), 0, 7, 99
	v2 := s.put(st, next, backend.IfVersion(v1))
	if v2 <= v1 {
		s.breaks("R8", "versions rise", "%d after %d", v2, v1)
	}
	next.Version = v2
	s.same(s.get(st, rec.ID), next, "R2", "Get returns the last Put, whatever Version it carried")

	for what, change := range map[string]func(*backend.Record){
		"Kind":    func(r *backend.Record) { r.Kind++ },
		"Owner":   func(r *backend.Record) { r.Owner += "x" },
		"Parent":  func(r *backend.Record) { r.Parent[0]++ },
		"Created": func(r *backend.Record) { r.Created++ },
	} {
		bad := next
		change(&bad)
		_, err = st.Put(ctx, bad, backend.IfVersion(v2))
		s.is(err, backend.ErrInvalid, "R10", what+" never changes")
	}
	s.same(s.get(st, rec.ID), next, "R10", "a refused Put changes nothing")

	s.is(st.Delete(ctx, rec.ID, v1), backend.ErrConflict, "R10", "Delete of an old version is ErrConflict")
	s.must(st.Delete(ctx, rec.ID, v2), "delete")
	_, err = st.Get(ctx, rec.ID)
	s.is(err, backend.ErrNotFound, "R5", "a deleted record is gone")
	v3, err := st.Put(ctx, rec, backend.IfAbsent())
	if err == nil && v3 <= v2 {
		s.breaks("R8", "versions rise also across a Delete", "%d after %d", v3, v2)
	}

	s.limits(st)
}

// limits is rule R1.
func (s *suite) limits(st backend.Store) {
	ctx := s.Context()
	for what, change := range map[string]func(*backend.Record){
		"a zero ID":                     func(r *backend.Record) { r.ID = backend.ID{} },
		"a zero Kind":                   func(r *backend.Record) { r.Kind = 0 },
		"an owner over the limit":       func(r *backend.Record) { r.Owner = strings.Repeat("x", backend.MaxOwner+1) },
		"a body over the limit":         func(r *backend.Record) { r.Body = make([]byte, backend.MaxBody+1) },
		"a negative Created":            func(r *backend.Record) { r.Created = -1 },
		"a negative Expires or PurgeAt": func(r *backend.Record) { r.Expires, r.PurgeAt = -1, -1 },
	} {
		rec := sample(2)
		change(&rec)
		_, err := st.Put(ctx, rec, backend.IfAbsent())
		s.is(err, backend.ErrInvalid, "R1", "Put refuses "+what)
	}
	_, err := st.Put(ctx, sample(2), backend.Cond{})
	s.is(err, backend.ErrInvalid, "R1", "Put refuses the zero Cond: there is no blind write")
	_, err = st.Get(ctx, id(2))
	s.is(err, backend.ErrNotFound, "R1", "what Put refuses is not written")

	big := sample(3)
	big.Owner = strings.Repeat("o", backend.MaxOwner)
	big.Body = bytes.Repeat([]byte{0, 0xff, 7}, backend.MaxBody/3)
	big.Version = s.put(st, big, backend.IfAbsent())
	s.same(s.get(st, big.ID), big, "R1", "a record at the limits is kept whole")
}

func (s *suite) compareAndSwap() {
	st := s.open()
	const workers, rounds = 100, 10
	rec := sample(1)
	version := uint64(0)
	for round := range rounds {
		cond := backend.IfAbsent()
		if version != 0 {
			cond = backend.IfVersion(version)
		}
		var won atomic.Int64
		var winner atomic.Uint64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for w := range workers {
			wg.Go(func() {
				mine := rec
				mine.Body = []byte{byte(round), byte(w)}
				<-start
				v, err := st.Put(background, mine, cond)
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(v)
				case !errors.Is(err, backend.ErrConflict):
					s.Errorf("rule R10 of package backend: the losers of a race get ErrConflict: got %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 {
			s.breaks("R7", "of n concurrent Puts with one condition exactly one returns nil", "%d of %d did", won.Load(), workers)
		}
		if winner.Load() <= version {
			s.breaks("R8", "versions rise strictly", "%d after %d", winner.Load(), version)
		}
		version = winner.Load()
		if got := s.get(st, rec.ID); got.Version != version {
			s.breaks("R5", "Get sees every Put that returned before it began", "version %d, want %d", got.Version, version)
		}
	}
	s.counter(st)
}

// counter adds up by compare-and-swap from many goroutines: any lost update, and
// any Get that is older than a Put that had returned, shows.
func (s *suite) counter(st backend.Store) {
	const workers, adds = 8, 50
	rec := sample(2)
	rec.Body = []byte{0, 0}
	s.put(st, rec, backend.IfAbsent())
	var latest atomic.Uint64 // the highest version that any Put has returned
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := 0; n < adds; {
				floor := latest.Load()
				cur, err := st.Get(background, rec.ID)
				if err != nil {
					s.Errorf("get: %v", err)
					return
				}
				if cur.Version < floor {
					s.Errorf("rule R5 of package backend: Get sees every Put that returned before it began: version %d after %d", cur.Version, floor)
					return
				}
				sum := int(cur.Body[0])<<8 + int(cur.Body[1]) + 1
				cur.Body = []byte{byte(sum >> 8), byte(sum)}
				v, err := st.Put(background, cur, backend.IfVersion(cur.Version))
				if errors.Is(err, backend.ErrConflict) {
					continue
				}
				if err != nil {
					s.Errorf("put: %v", err)
					return
				}
				n++
				for old := latest.Load(); v > old && !latest.CompareAndSwap(old, v); old = latest.Load() {
				}
			}
		})
	}
	wg.Wait()
	got := s.get(st, rec.ID)
	if sum := int(got.Body[0])<<8 + int(got.Body[1]); sum != workers*adds && !s.Failed() {
		s.breaks("R7", "no update is lost", "counted %d of %d", sum, workers*adds)
	}
}

func (s *suite) memory() {
	st := s.open()
	rec := sample(1)
	want := sample(1)
	want.Version = s.put(st, rec, backend.IfAbsent())
	rec.Body[0] ^= 0xff
	s.same(s.get(st, want.ID), want, "R6", "the store keeps nothing of what was passed to Put")
	got := s.get(st, want.ID)
	got.Body[0] ^= 0xff
	s.same(s.get(st, want.ID), want, "R6", "what Get hands out is the caller's own")
	if l, ok := capability[backend.Lister](s, st, "Lister"); ok {
		page, err := l.List(s.Context(), backend.Query{Kind: 1})
		s.must(err, "list")
		if len(page.Records) == 1 {
			page.Records[0].Body[0] ^= 0xff
		}
		s.same(s.get(st, want.ID), want, "R6", "what List hands out is the caller's own")
	}
	if r, ok := capability[backend.UsageRecorder](s, st, "UsageRecorder"); ok {
		batch := []backend.Usage{{ID: want.ID, N: 1, Last: 5}}
		s.must(r.AddUsage(s.Context(), batch), "add usage")
		batch[0].N = 100
		u, err := r.Usage(s.Context(), []backend.ID{want.ID})
		s.must(err, "usage")
		if u[0].N != 1 {
			s.breaks("R6", "the store keeps nothing of what was passed to AddUsage")
		}
	}
	if w, ok := capability[backend.Watcher](s, st, "Watcher"); ok {
		s.tokensAreOwn(st, w)
	}
}

// tokensAreOwn destroys the token that was handed in and those handed out.
func (s *suite) tokensAreOwn(st backend.Store, w backend.Watcher) {
	var first backend.Token
	s.watch(st, w, nil, func(b backend.Batch) bool { first = b.Token; return true })
	given := append(backend.Token(nil), first...)
	resets := 0
	n := 0
	s.watch(st, w, given, func(b backend.Batch) bool {
		clear(given)
		clear(b.Token)
		if b.Reset {
			resets++
		}
		n++
		return n == 3
	})
	if resets > 0 {
		s.breaks("R6", "a feed keeps nothing of its caller's tokens")
	}
}

func (s *suite) times() {
	st := s.open()
	for i, at := range []int64{0, 1, 999, 1_000, year2026 + 123, math.MaxInt64 / 1_000_000, math.MaxInt64} {
		rec := sample(i)
		rec.Created, rec.Expires, rec.PurgeAt = at, at, at
		rec.Version = s.put(st, rec, backend.IfAbsent())
		s.same(s.get(st, rec.ID), rec, "R2", "times come back to the millisecond")
	}
}

func (s *suite) identifiers() {
	st := s.open()
	owners := []string{
		"", "a", "A", "a ", " a", "á", "a\u0301", "a/b", "a:b", "a\x00", "a\x00b", "\x00", "\xff", "\xff\xff",
		"a%b", "a_b", "'; drop", "日本", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", backend.MaxOwner),
	}
	for i, owner := range owners {
		rec := sample(i)
		rec.Owner = owner
		rec.Version = s.put(st, rec, backend.IfAbsent())
		s.same(s.get(st, rec.ID), rec, "R2", "an owner is any bytes")
	}
	if l, ok := capability[backend.Lister](s, st, "Lister"); ok {
		for i, owner := range owners {
			if owner == "" {
				continue
			}
			page, err := l.List(s.Context(), backend.Query{Kind: 1, Owner: owner})
			s.must(err, "list")
			if len(page.Records) != 1 || page.Records[0].ID != id(i) {
				s.breaks("R15", "owners are equal only byte for byte", "%q lists %d records", owner, len(page.Records))
			}
		}
	}
	for i, odd := range []backend.ID{{15: 9}, {0: 1}, {0: 0xff}, backend.ID(bytes.Repeat([]byte{0xff}, 16)), {7: '/', 8: 0, 9: ':'}} {
		rec := sample(i)
		rec.ID = odd
		rec.Version = s.put(st, rec, backend.IfAbsent())
		s.same(s.get(st, odd), rec, "R2", "an ID is any bytes")
	}
}

func (s *suite) contexts() {
	st := s.open()
	rec := sample(1)
	version := s.put(st, rec, backend.IfAbsent())
	rec.Version = version
	cancelled, cancel := context.WithCancel(s.Context())
	cancel()
	past, cancelPast := context.WithDeadline(s.Context(), time.Now().Add(-time.Second))
	defer cancelPast()
	for _, c := range []struct {
		ctx  context.Context
		want error
	}{{cancelled, context.Canceled}, {past, context.DeadlineExceeded}} {
		changed := rec
		changed.Body = []byte("changed")
		_, err := st.Get(c.ctx, rec.ID)
		s.is(err, c.want, "R4", "Get under a context that is done fails with its error")
		_, err = st.Put(c.ctx, changed, backend.IfVersion(version))
		s.is(err, c.want, "R4", "Put under a context that is done fails with its error")
		_, err = st.Put(c.ctx, sample(2), backend.IfAbsent())
		s.is(err, c.want, "R4", "Put under a context that is done fails with its error")
		s.is(st.Delete(c.ctx, rec.ID, version), c.want, "R4", "Delete under a context that is done fails with its error")
		if l, ok := capability[backend.Lister](s, st, "Lister"); ok {
			_, err := l.List(c.ctx, backend.Query{Kind: 1})
			s.is(err, c.want, "R4", "List under a context that is done fails with its error")
		}
		if r, ok := capability[backend.UsageRecorder](s, st, "UsageRecorder"); ok {
			s.is(r.AddUsage(c.ctx, []backend.Usage{{ID: rec.ID, N: 1}}), c.want, "R4", "AddUsage under a context that is done fails with its error")
		}
		if p, ok := capability[backend.Purger](s, st, "Purger"); ok {
			_, err := p.Purge(c.ctx, time.UnixMilli(math.MaxInt64/1_000_000), 10)
			s.is(err, c.want, "R4", "Purge under a context that is done fails with its error")
		}
		if w, ok := capability[backend.Watcher](s, st, "Watcher"); ok {
			err := w.Watch(c.ctx, nil, func(backend.Batch) error { return nil })
			s.is(err, c.want, "R4", "Watch under a context that is done fails with its error")
		}
	}
	s.same(s.get(st, rec.ID), rec, "R4", "a call under a context that is done changes nothing")
	_, err := st.Get(s.Context(), id(2))
	s.is(err, backend.ErrNotFound, "R4", "a call under a context that is done changes nothing")
	s.cancelDuring(st)
}

// cancelDuring cancels Puts at any moment: what came back must agree with what
// is there.
func (s *suite) cancelDuring(st backend.Store) {
	for i := range 200 {
		rec := sample(100 + i)
		ctx, cancel := context.WithCancel(s.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range i * 20 {
				_ = ctx.Err() // a little later each time
			}
			cancel()
		}()
		_, err := st.Put(ctx, rec, backend.IfAbsent())
		<-done
		_, found := st.Get(s.Context(), rec.ID)
		switch {
		case err == nil && found != nil:
			s.breaks("R4", "a Put that returned nil is there", "%v", found)
		case err != nil && !errors.Is(err, backend.ErrIndeterminate) && found == nil:
			s.breaks("R4", "a Put that was applied and then cancelled is ErrIndeterminate", "got %v", err)
		}
	}
}

func (s *suite) closing() {
	before := goroutines()
	st := s.newStore(s.T)
	rec := sample(1)
	s.put(st, rec, backend.IfAbsent())
	watching := make(chan error, 1)
	started := make(chan struct{})
	w, watches := capability[backend.Watcher](s, st, "Watcher")
	if watches {
		var once sync.Once
		go func() {
			watching <- w.Watch(background, nil, func(backend.Batch) error {
				once.Do(func() { close(started) })
				return nil
			})
		}()
		<-started
	}
	s.must(st.Close(), "close")
	if err := st.Close(); err != nil {
		s.breaks("R11", "Close may be called again", "got %v", err)
	}
	if watches {
		select {
		case err := <-watching:
			s.is(err, backend.ErrClosed, "R11", "Close ends every Watch with ErrClosed")
		case <-time.After(10 * time.Second):
			s.breaks("R11", "Close ends every Watch")
		}
	}
	_, err := st.Get(background, rec.ID)
	s.is(err, backend.ErrClosed, "R11", "Get after Close is ErrClosed")
	_, err = st.Put(background, sample(2), backend.IfAbsent())
	s.is(err, backend.ErrClosed, "R11", "Put after Close is ErrClosed")
	s.is(st.Delete(background, rec.ID, 1), backend.ErrClosed, "R11", "Delete after Close is ErrClosed")
	if l, ok := capability[backend.Lister](s, st, "Lister"); ok {
		_, err := l.List(background, backend.Query{Kind: 1})
		s.is(err, backend.ErrClosed, "R11", "List after Close is ErrClosed")
	}
	if r, ok := capability[backend.UsageRecorder](s, st, "UsageRecorder"); ok {
		s.is(r.AddUsage(background, []backend.Usage{{ID: rec.ID, N: 1}}), backend.ErrClosed, "R11", "AddUsage after Close is ErrClosed")
		_, err := r.Usage(background, []backend.ID{rec.ID})
		s.is(err, backend.ErrClosed, "R11", "Usage after Close is ErrClosed")
	}
	if p, ok := capability[backend.Purger](s, st, "Purger"); ok {
		_, err := p.Purge(background, time.Now(), 1)
		s.is(err, backend.ErrClosed, "R11", "Purge after Close is ErrClosed")
	}
	if watches {
		err := w.Watch(background, nil, func(backend.Batch) error { return nil })
		s.is(err, backend.ErrClosed, "R11", "Watch after Close is ErrClosed")
	}
	if !eventually(func() bool { return goroutines() <= before }) {
		s.breaks("R11", "Close leaves no goroutine", "%d before, %d after", before, goroutines())
	}
	s.closeUnderLoad()
}

// closeUnderLoad closes while others write: what returned nil counts, what
// comes later is ErrClosed, and nothing hangs.
func (s *suite) closeUnderLoad() {
	st := s.newStore(s.T)
	var wg sync.WaitGroup
	var n atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := st.Put(background, sample(w*100_000+i), backend.IfAbsent())
				if errors.Is(err, backend.ErrClosed) {
					return
				}
				if err != nil {
					s.Errorf("rule R11 of package backend: a Put while the store closes succeeds or is ErrClosed: got %v", err)
					return
				}
				n.Add(1)
			}
		})
	}
	eventually(func() bool { return n.Load() > 50 })
	s.must(st.Close(), "close")
	wg.Wait()
}
