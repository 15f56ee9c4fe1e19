package etcdtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/link"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compact makes etcd forget all history up to now.
func compact(t *testing.T, c *clientv3.Client) {
	t.Helper()
	resp, err := c.Get(t.Context(), "x")
	require.NoError(t, err)
	_, err = c.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
}

func TestATokenFromBeforeACompactionGetsAReset(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	rec := create(t, s, 1)
	f := watch(t, s, nil)
	f.begun(t)
	old := state(f, func(f *feed) backend.Token { return f.token })
	f.stop()
	for n := range 5 {
		rec = create(t, s, 10+n)
	}
	compact(t, admin)
	f = watch(t, s, old)
	f.begun(t)
	f.await(t, "a Reset", func(f *feed) bool { return f.resets == 1 })
	rec.Version, _ = s.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	f.sees(t, rec)

	// What was compacted does not matter to a token that is at the present.
	f.proves(t)
	now := state(f, func(f *feed) backend.Token { return f.token })
	f.stop()
	compact(t, admin)
	f = watch(t, s, now)
	f.begun(t)
	rec.Version, _ = s.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	f.sees(t, rec)
	f.lossless(t)
}

// A feed that is cut off while history goes on and is compacted must not come
// back as if nothing had been lost.
func TestACompactionBehindACutGetsAReset(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	writer := open(t, admin, patient)
	l, cfg := behind(t, c)
	s := open(t, client(t, cfg), etcd.Options{})

	rec := create(t, writer, 1)
	f := watch(t, s, nil)
	f.begun(t)
	f.proves(t)
	l.Silence()
	at := time.Now()
	rec.Version, _ = writer.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	compact(t, admin)
	time.Sleep(2 * backend.HeartbeatEvery) // in which a feed that trusts itself would claim something
	require.False(t, state(f, func(f *feed) bool { return f.asOf.After(at) }), "a feed that is cut off proves nothing")
	require.NoError(t, l.Mend())
	// rec's change was the last before the compaction: etcd still has it, or not.
	f.await(t, "the change, or a Reset", func(f *feed) bool { return f.resets > 0 || f.latest[rec.ID] >= rec.Version })
	f.proves(t)

	l.Silence()
	for n := range 3 {
		rec = create(t, writer, 10+n)
	}
	require.NoError(t, writer.Delete(t.Context(), rec.ID, rec.Version))
	create(t, writer, 20)
	compact(t, admin)
	resets := state(f, func(f *feed) int { return f.resets })
	require.NoError(t, l.Mend())
	f.await(t, "a Reset", func(f *feed) bool { return f.resets == resets+1 })
	f.proves(t)
	rec = create(t, writer, 30)
	f.sees(t, rec)
}

func TestATokenOutlivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{Processes: true, NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	create(t, s, 0)
	live := watch(t, s, nil)
	live.begun(t)
	token := state(live, func(f *feed) backend.Token { return f.token })
	first := create(t, s, 1)
	c.Kill(0)
	require.NoError(t, c.Restart(0))
	var second backend.Record
	await.Until(t, "a write after the restart", func() bool {
		rec := record(2)
		v, err := s.Put(t.Context(), rec, backend.IfAbsent())
		rec.Version = v
		second = rec
		return err == nil
	})
	resumed := watch(t, s, token)
	for _, f := range []*feed{live, resumed} {
		f.sees(t, first)
		f.sees(t, second)
		f.proves(t)
		f.lossless(t)
	}
}

// Revisions are those of the whole cluster: what others write raises them without
// an event for this feed, and still it must prove that it is up to date.
func TestOthersWritesDoNotHoldUpTheProof(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	other := client(t, c.Config())
	s := open(t, client(t, c.Config()), patient)
	create(t, s, 1)
	f := watch(t, s, nil)
	f.begun(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	written := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			_, _ = other.Put(ctx, "elsewhere", fmt.Sprint(n))
		}
		written <- n
	}()
	before := state(f, func(f *feed) int { return f.batches })
	for range 10 {
		f.proves(t)
	}
	batches := state(f, func(f *feed) int { return f.batches }) - before
	// A feed that is held up begins anew when it has stood still for a second and a half.
	await.Quick(t, "a new proof", 10*backend.HeartbeatEvery, func() { f.proves(t) })
	cancel()
	n := <-written
	require.Greater(t, n, 10, "the other wrote meanwhile")
	require.GreaterOrEqual(t, batches, 10)
	f.lossless(t)
}

// A store that is made anew under the same prefix is another one, and a watch on
// the old must not take it for its continuation.
func TestAStoreMadeAnewGetsAReset(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	s := open(t, admin, etcd.Options{Prefix: "anew/", Timeout: patient.Timeout})
	rec := create(t, s, 1)
	f := watch(t, s, nil)
	f.begun(t)
	_, err := admin.Delete(t.Context(), "anew/", clientv3.WithPrefix())
	require.NoError(t, err)
	again := create(t, s, 1)
	require.Greater(t, again.Version, rec.Version)
	f.await(t, "a Reset", func(f *feed) bool { return f.resets > 0 })
	f.proves(t)
	page, err := s.List(t.Context(), backend.Query{Kind: 1})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
}

// A feed that began before anything was written misses nothing of what is, and
// has no reason for a Reset.
func TestAFeedOfAnEmptyStore(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	f := watch(t, s, nil)
	f.begun(t)
	token := state(f, func(f *feed) backend.Token { return f.token })
	rec := create(t, s, 1)
	f.sees(t, rec)
	f.proves(t)
	f.lossless(t)
	f = watch(t, s, token)
	f.sees(t, rec)
	f.lossless(t)
}

func TestWatchEndsWhereGoingOnIsHopeless(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	closing, err := clientv3.New(c.Config())
	require.NoError(t, err)
	s := open(t, closing, patient)
	f := watch(t, s, nil)
	f.begun(t)
	require.NoError(t, closing.Close())
	<-f.done
	require.ErrorIs(t, f.err, backend.ErrUnavailable)
	require.ErrorContains(t, f.err, "the client was closed")
	_, err = s.Get(t.Context(), record(1).ID)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrUnavailable)

	// A layout of the future.
	later := open(t, admin, patient)
	rec := create(t, later, 1)
	f = watch(t, later, nil)
	f.begun(t)
	_, err = admin.Put(t.Context(), "fob/m", "\x03 something")
	require.NoError(t, err)
	<-f.done
	require.ErrorIs(t, f.err, backend.ErrUnavailable)
	require.ErrorContains(t, f.err, "layout 3, and this version knows layouts 1 to 2")
	_, err = later.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.ErrorIs(t, err, backend.ErrUnavailable, "also for a store that knew the layout of before")
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
	require.ErrorContains(t, err, "layout")
}

// A feed that has much to catch up with gets it in several answers, and is not up
// to date before the last.
func TestCatchingUpIsWhole(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	create(t, s, 0)
	f := watch(t, s, nil)
	f.begun(t)
	token := state(f, func(f *feed) backend.Token { return f.token })
	f.stop()
	const n = 2500 // etcd answers with 1000 revisions at once
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := range n / 50 {
				if _, err := s.Put(t.Context(), record(1+w*n/50+i), backend.IfAbsent()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	written := time.Now()
	seen := 0
	err := s.Watch(t.Context(), token, func(b backend.Batch) error {
		require.False(t, b.Reset)
		seen += len(b.Changes)
		if b.AsOf.After(written) {
			return errSeen
		}
		return nil
	})
	require.ErrorIs(t, err, errSeen)
	require.Equal(t, n, seen, "changes before the first proof of them")
}

var errSeen = errors.New("seen enough")

// A member, or the way to it, that falls silent without closing anything does not
// hold the feed: it goes on at another member.
func TestASilentMemberDoesNotHoldTheFeed(t *testing.T) {
	t.Parallel()
	c := cluster(t, 3, etcdtest.Options{NoSync: true})
	cfg := c.Config()
	var links []*link.Link
	for i := range cfg.Endpoints {
		l := linkTo(t, c.Addr(i))
		links = append(links, l)
		cfg.Endpoints[i] = "http://" + l.Addr()
	}
	s, writer := open(t, client(t, cfg), etcd.Options{}), open(t, client(t, c.Config()), patient)
	rec := create(t, writer, 1)
	f := watch(t, s, nil)
	f.begun(t)
	for _, l := range links { // one of them is where the watch is
		f.proves(t)
		l.Silence()
		rec.Version = mustPut(t, writer, rec)
		start := time.Now()
		f.sees(t, rec)
		f.proves(t)
		t.Logf("after %v", time.Since(start))
		await.Until(t, "an answer to a read", func() bool {
			_, err := s.Get(t.Context(), rec.ID)
			return err == nil
		})
		require.NoError(t, l.Mend())
	}
	f.lossless(t)
}
