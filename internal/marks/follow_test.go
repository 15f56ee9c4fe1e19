package marks_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

// follower is a process whose ledger follows the feed, as the test plays it.
type follower struct {
	*process
	store    backend.Store // without faults
	fault    *backendtest.Fault
	problems []error
	settled  []marks.Settled
	failed   []error
	moved    []int
	filled   []int
}

// follow runs a test in a bubble with a process that follows, over the store that it gets.
func follow(t *testing.T, test func(t *testing.T, f *follower)) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		f := &follower{store: store, fault: backendtest.NewFault(store)}
		f.process = newProcess(f.fault, time.Now())
		f.Problem = func(_ record.ID, err error) { f.problems = append(f.problems, err) }
		ctx, cancel := context.WithCancel(t.Context())
		lister, _ := backend.As[backend.Lister](f.fault)
		go f.KeepFilled(ctx, lister, marks.Progress{
			Moved:  func(n int) { f.moved = append(f.moved, n) },
			Filled: func(n int) { f.filled = append(f.filled, n) },
			Tried: func(err error) {
				if err != nil {
					f.failed = append(f.failed, err)
				}
			},
		})
		go f.KeepSettled(ctx, func(s marks.Settled) { f.settled = append(f.settled, s) })
		test(t, f)
		cancel()
		synctest.Wait()
		require.NoError(t, store.Close())
	})
}

// knows asserts what the set says of a mark.
func (f *follower) knows(t *testing.T, id record.ID, known bool, ends bool) {
	t.Helper()
	found, is := f.Get(id)
	require.Equal(t, known, is)
	require.Equal(t, ends, found.Before == clock.Forever)
}

// elsewhere is another process on the same store.
func (f *follower) elsewhere() *process { return newProcess(f.store, f.now) }

// noReads makes reads of single records and of several fail.
func (f *follower) noReads() {
	f.fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpGet {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
}

// settle waits until what was named has been read, although nobody needs it.
func (f *follower) settle() {
	time.Sleep(marks.SettleEvery)
	synctest.Wait()
}

func (f *follower) ended(t *testing.T, id record.ID, in time.Duration) {
	t.Helper()
	_, err := f.elsewhere().End(t.Context(), id, f.now.Add(in).UnixMilli(), "left")
	require.NoError(t, err)
}

var other = record.Named(record.Mark, "token", "2")

func TestASetKnowsAllMarksOnceItWasFilled(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.ended(t, token, time.Hour)
		f.knows(t, token, false, false)
		f.knows(t, other, false, false)
		f.Begin()
		synctest.Wait()
		f.knows(t, token, true, true)
		f.knows(t, other, true, false)
		require.Empty(t, f.moved, "that was quick")
		n, named, complete := f.Known()
		require.Equal(t, []any{1, 0, true}, []any{n, named, complete})
	})
}

// A record that the feed has named is unknown until it was read. Only what is not taken back
// stays known.
func TestWhatIsNamedIsUnknownUntilItWasRead(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.Begin()
		synctest.Wait()
		f.noReads()
		f.ended(t, token, time.Hour)
		at := clock.Moment{MS: f.now.UnixMilli(), Mono: 7}
		f.Name([]record.ID{token, subject, {1}}, at)
		synctest.Wait()
		f.knows(t, token, false, false)
		f.knows(t, subject, false, false)
		f.knows(t, other, true, false)
		f.fault.Inject(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		f.knows(t, token, true, true)
		f.knows(t, subject, true, false)
		require.Len(t, f.settled, 1)
		require.Equal(t, at, f.settled[0].NamedAt)
		f.noReads()
		f.Name([]record.ID{token}, at)
		f.knows(t, token, true, true)
	})
}

// A filling that began before the feed began anew may have read what was lost since.
func TestAFillingThatAFeedHasOutrunIsDoneAgain(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		scans := 0
		f.fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpScan {
				if scans++; scans <= 2 {
					return backendtest.Injection{After: func() { time.Sleep(time.Second) }} // it was read, and takes its time
				}
				return backendtest.Injection{Delay: time.Second}
			}
			return backendtest.Injection{}
		})
		f.Begin()
		time.Sleep(1500 * time.Millisecond)
		f.ended(t, token, time.Hour) // its change is among those that the feed has missed
		f.Begin()
		time.Sleep(time.Second) // the first filling is over
		f.knows(t, token, false, false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		f.knows(t, token, true, true)
	})
}

func TestAFillingThatFailsIsTriedAgain(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.fault.InjectOnce(backendtest.OpScan, backendtest.Unavailable())
		f.Begin()
		synctest.Wait()
		require.Len(t, f.failed, 1)
		require.ErrorIs(t, f.failed[0], backend.ErrUnavailable)
		f.knows(t, other, false, false)
		time.Sleep(time.Second)
		synctest.Wait()
		f.knows(t, other, true, false)
		require.Len(t, f.failed, 1)
	})
}

// TestAStoreWithoutScanIsListed, page by page.
func TestAStoreWithoutScanIsListed(t *testing.T) {
	store := memory.New()
	defer store.Close()
	p := newProcess(struct{ backend.Store }{store}, time.UnixMilli(1_700_000_000_000))
	for i := range backend.MaxLimit + 10 {
		_, err := p.End(t.Context(), record.Named(record.Mark, "token", fmt.Sprint(i)), p.now.Add(time.Hour).UnixMilli(), "")
		require.NoError(t, err)
	}
	other := newProcess(struct{ backend.Store }{store}, p.now)
	ctx, cancel := context.WithCancel(t.Context())
	var filling sync.WaitGroup
	filling.Go(func() {
		other.KeepFilled(ctx, store, marks.Progress{Tried: func(err error) {
			if err != nil {
				t.Error(err)
			}
		}})
	})
	other.Begin()
	await.Until(t, "that all are known", func() bool { _, _, complete := other.Known(); return complete })
	cancel()
	filling.Wait()
	n, _, _ := other.Known()
	require.Equal(t, backend.MaxLimit+10, n)
}

// A mark that cannot be read is told once, and once more when it can be read again, however
// it is found.
func TestAMarkThatCannotBeReadIsToldOfUntilItCan(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		store := f.store
		put := func(body string) {
			rec, err := store.Get(t.Context(), token)
			cond := backend.IfVersion(rec.Version)
			if errors.Is(err, backend.ErrNotFound) {
				cond = backend.IfAbsent()
			}
			_, err = store.Put(t.Context(), backend.Record{ID: token, Kind: record.Mark, Created: 1, Body: []byte(body)}, cond)
			require.NoError(t, err)
		}
		put("nonsense")
		f.Begin()
		synctest.Wait()
		require.Len(t, f.problems, 1)
		require.ErrorIs(t, f.problems[0], errs.ErrCorrupt)
		found, known := f.Get(token)
		require.True(t, known)
		require.ErrorIs(t, found.Bad, errs.ErrCorrupt)

		good := backend.Record{ID: token, Kind: record.Mark}
		(&marks.Mark{Before: clock.Forever}).Encode(&good)
		put(string(good.Body))
		f.Begin() // the feed has missed that
		f.settle()
		require.Len(t, f.problems, 2)
		require.NoError(t, f.problems[1])
		f.knows(t, token, true, true)
		require.Empty(t, f.settled, "nobody knows when it was written")
	})
}

// What has expired by every clock is dropped without a read, by whoever may purge.
func TestAMarkThatIsOverIsDropped(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.ended(t, token, time.Hour)
		f.ended(t, other, 3*time.Hour)
		f.Begin()
		synctest.Wait()
		f.noReads()
		for _, left := range []int{1, 0} {
			f.now = f.now.Add(2 * time.Hour)
			f.DropOver()
			n, _, _ := f.Known()
			require.Equal(t, left, n)
			f.knows(t, token, true, false)
			f.knows(t, other, true, left == 1)
		}
	})
}

// A process that begins with a wrong clock, and whose clock is set right then, knows what
// was revoked.
func TestAClockThatIsWrongAtTheBeginningDropsNothing(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		right := f.now
		f.ended(t, token, 26*time.Hour)
		f.now = right.Add(48 * time.Hour)
		f.Begin()
		f.Name([]record.ID{token}, clock.Moment{})
		f.settle()
		f.now = right
		f.knows(t, token, true, true)
	})
}

// damaged is a store that cannot read one record, and does not say of which of many.
type damaged struct {
	*memory.Store
	bad    backend.ID
	mended atomic.Bool
}

func (d *damaged) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if id == d.bad && !d.mended.Load() {
		return backend.Record{}, backend.ErrCorrupt
	}
	return d.Store.Get(ctx, id)
}

func (d *damaged) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if slices.Contains(ids, d.bad) && !d.mended.Load() {
		return nil, backend.ErrCorrupt
	}
	return d.Store.GetMany(ctx, ids)
}

func (d *damaged) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if backend.Kind(d.bad[0]) == kind && !d.mended.Load() {
		return backend.ErrCorrupt
	}
	return d.Store.Scan(ctx, kind, fn)
}

// A record that the store itself cannot read is told of, and keeps no other from being read.
func TestARecordThatTheStoreCannotReadHoldsUpNoOther(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		store := &damaged{Store: f.store.(*memory.Store), bad: other}
		store.mended.Store(true)
		f.Store.Store = store // nobody reads yet
		f.Begin()
		synctest.Wait()
		f.ended(t, token, time.Hour)
		store.mended.Store(false)
		f.Name([]record.ID{other, token, subject}, clock.Moment{Mono: 1})
		f.settle()
		f.knows(t, token, true, true)
		f.knows(t, subject, true, false)
		require.Len(t, f.problems, 1)
		require.ErrorIs(t, f.problems[0], errs.ErrCorrupt)
		found, known := f.Get(other)
		require.True(t, known)
		require.ErrorIs(t, found.Bad, errs.ErrCorrupt)

		// All that are there cannot be read meanwhile, and that is not tried all the time.
		f.Begin()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		require.InDelta(t, 11, len(f.failed), 1)
		store.mended.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		f.knows(t, token, true, true)
		f.knows(t, other, true, false)
	})
}

// What is named during a read does not begin the next one at once.
func TestWhatIsNamedDuringAReadWaits(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		bulk := &bulkReads{Store: f.store, takes: 20 * time.Millisecond}
		f.Store.Store = bulk // nobody reads yet
		f.Begin()
		synctest.Wait()
		const n = 2000
		for i := range n { // 200 logouts a second, for 10 s
			f.Name([]record.ID{numbered(uint64(i))}, clock.Moment{})
			time.Sleep(5 * time.Millisecond)
		}
		f.settle()
		_, named, _ := f.Known()
		require.Zero(t, named)
		require.LessOrEqual(t, bulk.n.Load(), int64(25))
	})
}

// After a burst of names their map is as small as before.
func TestABurstOfNamesLeavesNothingBehind(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.Begin()
		synctest.Wait()
		before := heapNow()
		ids := make([]record.ID, 200_000)
		for i := range ids {
			ids[i] = numbered(uint64(i))
		}
		f.Name(ids, clock.Moment{})
		require.Greater(t, heapNow()-before, int64(8<<20))
		ids = nil
		time.Sleep(time.Minute)
		synctest.Wait()
		_, named, _ := f.Known()
		require.Zero(t, named)
		require.Less(t, heapNow()-before, int64(2<<20))
	})
}

// A mark that the store has no more is unknown to nobody: it was purged.
func TestAMarkThatIsGoneIsDropped(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.ended(t, token, time.Hour)
		f.Begin()
		synctest.Wait()
		rec, err := f.fault.Get(t.Context(), token)
		require.NoError(t, err)
		require.NoError(t, f.fault.Delete(t.Context(), token, rec.Version))
		f.Name([]record.ID{token}, clock.Moment{})
		f.settle()
		f.knows(t, token, true, false)
	})
}

// Any reads what is not known, and all of it in one call.
func TestOneMarkOfSeveralEnds(t *testing.T) {
	follow(t, func(t *testing.T, f *follower) {
		f.ended(t, token, time.Hour)
		ends := func(_ record.ID, k *marks.Mark) error {
			if k.Before == clock.Forever {
				return errs.ErrRevoked
			}
			return nil
		}
		for _, c := range []struct {
			live  bool
			ids   []record.ID
			reads int
			want  bool
		}{
			{true, []record.ID{other, token}, 2, true}, // nothing is known before the set is filled
			{true, []record.ID{token, other}, 0, true}, // it is now
			{true, []record.ID{other, subject}, 2, false},
			{false, []record.ID{token, other}, 2, true},
		} {
			var reads []record.ID
			refused, err := f.Refused(t.Context(), c.live, func(id record.ID) { reads = append(reads, id) }, ends, c.ids...)
			require.NoError(t, err)
			require.Equal(t, c.want, refused != nil)
			require.Len(t, reads, c.reads)
			if c.want {
				f.Raise(token, marks.Mark{Before: clock.Forever})
			}
		}
	})
}

// BenchmarkFill is how long a new process reads ten million marks, and what they take, over
// a store that costs nothing. The process answers meanwhile.
func BenchmarkFill(b *testing.B) {
	const n = 10_000_000
	for b.Loop() {
		l := &marks.Ledger{Set: marks.New(true, func(...backend.ID) {}), Store: recordstore.Store{Store: manyMarks{memory.New(), n}}, Clock: new(clock.Clock)}
		l.Clock.Start(nil, time.Hour)
		heap := heapNow()
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan struct{})
		moved := 0
		go func() {
			defer close(done)
			l.KeepFilled(ctx, memory.New(), marks.Progress{
				Moved:  func(int) { moved++ },
				Filled: func(int) { cancel() },
				Tried: func(err error) {
					if err != nil {
						b.Error(err)
					}
				},
			})
		}()
		l.Begin()
		<-done
		got, _, complete := l.Known()
		if got != n || !complete {
			b.Fatalf("%d marks, complete: %v", got, complete)
		}
		b.ReportMetric(float64(heapNow()-heap)/n, "bytes/mark")
		b.ReportMetric(float64(moved), "reports")
		runtime.KeepAlive(l)
	}
}

func heapNow() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// manyMarks is a store that makes up so many marks.
type manyMarks struct {
	backend.Store
	n int
}

func (s manyMarks) Scan(_ context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if kind != record.Mark {
		return nil
	}
	var page [1000]backend.Record
	for at := 0; at < s.n; at += len(page) {
		for i := range page {
			page[i] = backend.Record{ID: numbered(uint64(at + i)), Kind: record.Mark, Created: 1, PurgeAt: 1 << 50}
			(&marks.Mark{Before: clock.Forever, Reason: "logged out"}).Encode(&page[i])
		}
		if err := fn(page[:]); err != nil {
			return fmt.Errorf("at %d: %w", at, err)
		}
	}
	return nil
}

// TestRevocationsAreReadTogether, as long as nobody needs them: the store is asked twice a
// second, however many there are in a second.
func TestRevocationsAreReadTogether(t *testing.T) {
	const n, every = 100, 10 * time.Millisecond
	for _, c := range []struct {
		needed      bool
		least, most int64
	}{{false, 2, 4}, {true, n, n + 1}} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			reads := &bulkReads{Store: store}
			f := &follower{process: newProcess(reads, time.Now()), store: store}
			f.Begin()
			settled := 0
			ctx, cancel := context.WithCancel(t.Context())
			go f.KeepFilled(ctx, store, marks.Progress{Tried: func(error) {}})
			go f.KeepSettled(ctx, func(marks.Settled) { settled++ })
			synctest.Wait()
			for i := range n {
				id := record.Named(record.Mark, "token", fmt.Sprint(i))
				f.ended(t, id, time.Hour)
				f.Name([]record.ID{id}, clock.Moment{Mono: int64(i + 1)})
				if c.needed {
					f.Get(id)
				}
				time.Sleep(every)
				if c.needed {
					synctest.Wait()
					f.knows(t, id, true, true)
				}
			}
			f.settle()
			require.Equal(t, n, settled)
			require.GreaterOrEqual(t, reads.n.Load(), c.least)
			require.LessOrEqual(t, reads.n.Load(), c.most)
			cancel()
			synctest.Wait()
			require.NoError(t, store.Close())
		})
	}
}

// bulkReads counts reads. A read of several records is one.
type bulkReads struct {
	backend.Store
	takes time.Duration // each of them
	n     atomic.Int64
}

func (b *bulkReads) Unwrap() backend.Store { return b.Store }

func (b *bulkReads) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	b.n.Add(1)
	time.Sleep(b.takes)
	return b.Store.Get(ctx, id)
}

func (b *bulkReads) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	b.n.Add(1)
	time.Sleep(b.takes)
	bulk, _ := backend.As[backend.BulkReader](b.Store)
	return bulk.GetMany(ctx, ids)
}
