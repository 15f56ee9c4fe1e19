package etcdtest_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// writers write until stop and remember what was acknowledged.
type writers struct {
	stop  atomic.Bool
	wg    sync.WaitGroup
	acked []map[int]uint64 // of each writer: record -> version
	n     atomic.Int64
	worst atomic.Int64 // the longest time without an acknowledgement, in ns, of one writer
}

// writing starts 8 goroutines, each with records of its own, which it overwrites
// in turn. Whatever they answer must be true: what was refused may not be there.
func writing(t *testing.T, s backend.Store) *writers {
	w := &writers{acked: make([]map[int]uint64, 8)}
	for g := range w.acked {
		w.acked[g] = map[int]uint64{}
		w.wg.Go(func() {
			last := time.Now()
			for i := 0; !w.stop.Load(); i++ {
				rec := record(1000*g + i%20)
				cond := backend.IfAbsent()
				if v, ok := w.acked[g][1000*g+i%20]; ok {
					cond = backend.IfVersion(v)
				}
				rec.Body = strconv.AppendInt(nil, int64(i), 10)
				v, err := s.Put(context.Background(), rec, cond)
				switch {
				case err == nil:
				case errors.Is(err, backend.ErrIndeterminate):
					// The caller reads again, and goes on from what it finds.
					v = reread(s, rec.ID)
				case errors.Is(err, backend.ErrUnavailable):
					continue
				default:
					t.Errorf("a Put answered %v", err)
					return
				}
				if gap := int64(time.Since(last)); gap > w.worst.Load() {
					w.worst.Store(gap)
				}
				last = time.Now()
				if v == 0 {
					continue
				}
				if old := w.acked[g][1000*g+i%20]; v < old {
					t.Errorf("version %d after version %d", v, old)
				}
				w.acked[g][1000*g+i%20] = v
				w.n.Add(1)
			}
		})
	}
	return w
}

// reread is the version that a record has, 0 where there is none.
func reread(s backend.Store, id backend.ID) uint64 {
	for {
		rec, err := s.Get(context.Background(), id)
		if err == nil || errors.Is(err, backend.ErrNotFound) {
			return rec.Version
		}
	}
}

// finish stops the writers and checks that all that they were told is so, and
// that the feeds have heard of it.
func (w *writers) finish(t *testing.T, s backend.Store, feeds ...*feed) {
	t.Helper()
	w.stop.Store(true)
	w.wg.Wait()
	for _, acked := range w.acked {
		for n, v := range acked {
			var rec backend.Record
			await.Until(t, "a read", func() (ok bool) {
				var err error
				rec, err = s.Get(t.Context(), record(n).ID)
				require.NotErrorIs(t, err, backend.ErrNotFound)
				return err == nil
			})
			require.Equal(t, v, rec.Version, "the last version that was acknowledged is the one that is there")
			for _, f := range feeds {
				f.sees(t, rec)
			}
		}
	}
	for _, f := range feeds {
		f.proves(t)
		f.lossless(t)
	}
}

// more waits until they have written that many more.
func (w *writers) more(t *testing.T, n int64) {
	t.Helper()
	from := w.n.Load()
	await.Until(t, "writes", func() bool { return w.n.Load() >= from+n })
}

// The leader is stopped in an orderly way, and then another is killed with
// SIGKILL, under 8 writers and two feeds: one of a client that knows all members,
// one of a client that begins at the one that goes.
func TestTheFeedAndTheWritesOutliveTheLeader(t *testing.T) {
	t.Parallel()
	c := cluster(t, 3, etcdtest.Options{Processes: true, NoSync: true})
	s := open(t, client(t, c.Config()), etcd.Options{})
	create(t, s, 900_000)
	leader := c.Leader()
	require.GreaterOrEqual(t, leader, 0)
	second := open(t, client(t, c.Config((leader+1)%3, leader, (leader+2)%3)), etcd.Options{})
	feeds := []*feed{watch(t, s, nil), watch(t, second, nil)}
	for _, f := range feeds {
		f.begun(t)
	}
	w := writing(t, s)
	w.more(t, 200)
	c.Stop(leader)
	w.more(t, 200)
	require.NoError(t, c.Restart(leader))
	w.more(t, 200)
	next := c.Leader()
	require.GreaterOrEqual(t, next, 0)
	c.Kill(next)
	w.more(t, 200)
	for _, f := range feeds {
		f.proves(t)
	}
	require.NoError(t, c.Restart(next))
	w.finish(t, s, feeds...)
	t.Logf("%d writes; the longest that one writer waited was %v", w.n.Load(), time.Duration(w.worst.Load()))
}

// A member that is cut off from the others still answers a watch's request for
// progress, from its own past: the reason why that alone proves nothing here.
func TestAMemberThatIsCutOffProvesNothing(t *testing.T) {
	t.Parallel()
	c := cluster(t, 3, etcdtest.Options{NoSync: true})
	stale := (c.Leader() + 1) % 3
	all, alone := open(t, client(t, c.Config((stale+1)%3, (stale+2)%3)), etcd.Options{}), open(t, client(t, c.Config(stale)), etcd.Options{Timeout: time.Second})
	anyone := open(t, client(t, c.Config()), etcd.Options{})
	rec := create(t, all, 1)
	cut, free := watch(t, alone, nil), watch(t, anyone, nil)
	cut.begun(t)
	free.begun(t)
	// Only a watch that is past its beginning is told of its progress.
	rec.Version = mustPut(t, all, rec)
	cut.sees(t, rec)
	cut.proves(t)

	// A bare watch that does not demand a leader, for comparison.
	bare := client(t, c.Config(stale))
	changes := bare.Watch(t.Context(), "fob/r", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-changes

	c.Isolate(stale)
	rec.Version = mustPut(t, all, rec)
	isolated := time.Now()
	rec.Version = mustPut(t, all, rec)

	require.NoError(t, bare.RequestProgress(t.Context()))
	progress := <-changes
	require.True(t, progress.IsProgressNotify(), "the member that is cut off answers, as if all were well")
	require.Less(t, uint64(progress.Header.Revision), rec.Version, "and from its past")

	free.sees(t, rec)
	free.proves(t) // whichever member served it before
	for range 3 {
		free.proves(t)
	}
	time.Sleep(time.Second)
	require.False(t, state(cut, func(f *feed) bool { return f.asOf.After(isolated) }), "a proof from a member that is cut off")
	require.Less(t, state(cut, func(f *feed) uint64 { return f.latest[rec.ID] }), rec.Version)
	_, err := alone.Get(t.Context(), rec.ID)
	require.ErrorIs(t, err, backend.ErrUnavailable, "nor does it answer a read")
	await.Until(t, "an answer of the others", func() bool {
		_, err = anyone.Get(t.Context(), rec.ID)
		return err == nil
	})
	for n := range 9 { // whichever member each of them goes to first
		create(t, anyone, 100+n)
	}

	c.Heal()
	cut.sees(t, rec)
	cut.proves(t)
	cut.lossless(t)
	free.lossless(t)
}

// Where the watch is when its member is cut off, and where it is tried next, is up
// to the client's turn: each member is cut off in turn, a few times.
func TestAFeedFindsAMemberThatIsNotCutOff(t *testing.T) {
	t.Parallel()
	c := cluster(t, 3, etcdtest.Options{NoSync: true})
	writer := open(t, client(t, c.Config()), etcd.Options{})
	rec := create(t, writer, 1)
	s := open(t, client(t, c.Config()), etcd.Options{}) // with a client of its own: nothing else disturbs its turn
	f := watch(t, s, nil)
	f.begun(t)
	for i := range 3 {
		c.Isolate(i)
		await.Until(t, "a write", func() bool {
			got, err := writer.Get(t.Context(), rec.ID)
			if err == nil {
				got.Version, err = writer.Put(t.Context(), got, backend.IfVersion(got.Version))
				rec = got
			}
			return err == nil
		})
		start := time.Now()
		f.sees(t, rec)
		f.proves(t)
		t.Logf("after %v", time.Since(start))
		c.Heal()
		f.proves(t)
	}
	f.lossless(t)
}
