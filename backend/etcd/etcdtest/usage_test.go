package etcdtest_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// left writes what an AddUsage leaves whose process is killed before it could
// fold: a key in the journal, in the layout that package etcd describes.
func left(t *testing.T, c *clientv3.Client, name byte, usage ...backend.Usage) {
	t.Helper()
	value := []byte{1}
	for _, u := range usage {
		value = append(value, u.ID[:]...)
		value = binary.BigEndian.AppendUint64(value, u.N)
		value = binary.BigEndian.AppendUint64(value, uint64(u.Last))
	}
	_, err := c.Put(t.Context(), "fob/j0123456789abcde"+string([]byte{name, 0}), string(value))
	require.NoError(t, err)
}

func journal(t *testing.T, c *clientv3.Client) int64 {
	t.Helper()
	resp, err := c.Get(t.Context(), "fob/j", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	return resp.Count
}

func used(t *testing.T, s *etcd.Store, want ...backend.Usage) {
	t.Helper()
	ids := make([]backend.ID, len(want))
	for i, u := range want {
		ids[i] = u.ID
	}
	got, err := s.Usage(t.Context(), ids)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestUsageThatAKilledProcessLeftCounts(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	a, b := create(t, s, 1), create(t, s, 2)
	require.NoError(t, s.AddUsage(t.Context(), []backend.Usage{{ID: a.ID, N: 1, Last: 50}}))
	require.Zero(t, journal(t, admin), "an addition is folded at once")
	left(t, admin, 1, backend.Usage{ID: a.ID, N: 10, Last: 40}, backend.Usage{ID: b.ID, N: 20, Last: 60})
	left(t, admin, 2, backend.Usage{ID: a.ID, N: 100, Last: 70})
	used(t, s, backend.Usage{ID: a.ID, N: 111, Last: 70}, backend.Usage{ID: b.ID, N: 20, Last: 60})
	require.Equal(t, int64(2), journal(t, admin), "reading changes nothing")
	require.NoError(t, s.Maintain(t.Context()))
	require.Zero(t, journal(t, admin))
	used(t, s, backend.Usage{ID: a.ID, N: 111, Last: 70}, backend.Usage{ID: b.ID, N: 20, Last: 60})

	// A record that goes takes what was left for it along.
	left(t, admin, 3, backend.Usage{ID: a.ID, N: 1000}, backend.Usage{ID: b.ID, N: 1000})
	require.NoError(t, s.Delete(t.Context(), a.ID, a.Version))
	require.NoError(t, s.Maintain(t.Context()))
	used(t, s, backend.Usage{ID: a.ID}, backend.Usage{ID: b.ID, N: 1020, Last: 60})

	// What is damaged holds up nothing.
	_, err := admin.Put(t.Context(), "fob/jx", "damaged")
	require.NoError(t, err)
	left(t, admin, 4, backend.Usage{ID: b.ID, N: 1})
	used(t, s, backend.Usage{ID: b.ID, N: 1021, Last: 60})
	require.NoError(t, s.Maintain(t.Context()))
	require.Zero(t, journal(t, admin))
	used(t, s, backend.Usage{ID: b.ID, N: 1021, Last: 60})
}

// Several processes add to the same counters, fold each other's additions, and
// read meanwhile: no addition is lost, none counts twice, and no reader sees a
// part of one.
func TestManyProcessesAddUsage(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	const stores, adds, size = 3, 6, 250
	batch := make([]backend.Usage, size)
	ids := make([]backend.ID, size)
	for i := range batch {
		ids[i] = record(i).ID
		batch[i] = backend.Usage{ID: ids[i], N: 1, Last: 9}
	}
	var wg sync.WaitGroup
	for range stores {
		s := open(t, client(t, c.Config()), patient)
		wg.Go(func() {
			for range adds {
				if err := s.AddUsage(t.Context(), batch); err != nil {
					t.Error(err)
				}
				got, err := s.Usage(t.Context(), ids)
				if err != nil {
					t.Error(err)
					return
				}
				for _, u := range got {
					if u.N != got[0].N || u.N == 0 {
						t.Errorf("a reader saw a part of a batch: %d and %d", u.N, got[0].N)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	s := open(t, client(t, c.Config()), patient)
	require.NoError(t, s.Maintain(t.Context()))
	for i := range batch {
		batch[i].N = stores * adds
	}
	used(t, s, batch...)
}

// An addition whose answer is lost is not sent again: another process may have folded
// the first, and nothing would tell the second that it is one too many.
func TestUsageWhoseAnswerIsLostCountsOnce(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	l, cfg := behind(t, c)
	s, plain := open(t, client(t, cfg), patient), open(t, client(t, c.Config()), patient)
	rec := create(t, s, 1) // the connection is there
	mute(l)
	added := make(chan error, 1)
	go func() { added <- s.AddUsage(t.Context(), []backend.Usage{{ID: rec.ID, N: 1, Last: 5}}) }()
	await.Until(t, "the addition whose answer is lost", func() bool {
		got, err := plain.Usage(t.Context(), []backend.ID{rec.ID})
		return err == nil && got[0].N == 1
	})
	require.NoError(t, plain.Maintain(t.Context()))
	require.NoError(t, l.Mend())
	only(t, <-added, backend.ErrIndeterminate)
	used(t, plain, backend.Usage{ID: rec.ID, N: 1, Last: 5})
}

func TestALargeBatchOfUsage(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	batch := make([]backend.Usage, 10_001)
	for i := range batch {
		batch[i] = backend.Usage{ID: record(i).ID, N: 1, Last: 1}
	}
	require.ErrorIs(t, s.AddUsage(t.Context(), batch), backend.ErrInvalid)
	require.NoError(t, s.AddUsage(t.Context(), batch[:10_000]))
	used(t, s, batch[9_999], batch[0], backend.Usage{ID: batch[10_000].ID})
}

// Two processes sweep at once: each record goes once, and is counted once.
func TestTwoProcessesPurge(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s, other := open(t, client(t, c.Config()), patient), open(t, client(t, c.Config()), patient)
	const due = 150
	for n := range due + 10 {
		rec := record(n)
		rec.PurgeAt = 1000
		if n >= due {
			rec.PurgeAt = 2000
		}
		_, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	var wg sync.WaitGroup
	gone := make([]int, 2)
	for i, s := range []*etcd.Store{s, other} {
		wg.Go(func() {
			n, err := s.Purge(t.Context(), time.UnixMilli(1500), backend.MaxLimit)
			if err != nil {
				t.Error(err)
			}
			gone[i] = n
		})
	}
	wg.Wait()
	require.Equal(t, due, gone[0]+gone[1])
	page, err := s.List(t.Context(), backend.Query{Kind: 1})
	require.NoError(t, err)
	require.Len(t, page.Records, 10)
}
