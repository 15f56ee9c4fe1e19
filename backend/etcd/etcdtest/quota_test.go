package etcdtest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/stretchr/testify/require"
)

// rounds is how many clusters are filled up, by 64 writers each.
func rounds() int {
	if long {
		return 3
	}
	return 1
}

// fates is what many writers were told.
type fates struct {
	mu         sync.Mutex
	made, gone []backend.ID
}

// until64 runs a write of a new ID in 64 goroutines, each until one is refused.
func (f *fates) until64(t *testing.T, write func(n int) (backend.ID, error)) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := range 1000 {
				id, err := write(1000*w + n)
				f.mu.Lock()
				switch {
				case err == nil:
					f.made = append(f.made, id)
				case errors.Is(err, backend.ErrIndeterminate): // a busy server has let it time out
				case errors.Is(err, backend.ErrUnavailable):
					f.gone = append(f.gone, id)
				default:
					t.Errorf("with the quota used up, a write answers %v", err)
				}
				f.mu.Unlock()
				if err != nil && !errors.Is(err, backend.ErrIndeterminate) {
					return
				}
			}
		})
	}
	wg.Wait()
	require.NotEmpty(t, f.made)
	require.NotEmpty(t, f.gone)
}

// A member applies a write that is over the quota if it was under it when it came in,
// and then says that there was no space. What is answered must be true of it all the
// same.
func TestWhatTheQuotaRefusesIsNotThere(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("x"), backend.MaxBody)
	for range rounds() {
		c := cluster(t, 1, etcdtest.Options{NoSync: true, QuotaBytes: 4 << 20})
		s := open(t, client(t, c.Config()), patient)
		var f fates
		f.until64(t, func(n int) (backend.ID, error) {
			rec := record(n)
			rec.Body = body
			_, err := s.Put(t.Context(), rec, backend.IfAbsent())
			return rec.ID, err
		})
		for _, id := range f.made {
			_, err := s.Get(t.Context(), id)
			require.NoError(t, err)
		}
		applied := 0
		for _, id := range f.gone {
			if _, err := s.Get(t.Context(), id); !errors.Is(err, backend.ErrNotFound) {
				applied++
			}
		}
		require.Zero(t, applied, "writes that were surely not made, of %d", len(f.gone))
	}
}

// The same of an update, which is made or is not.
func TestAnUpdateThatTheQuotaRefuses(t *testing.T) {
	t.Parallel()
	for range rounds() {
		c := cluster(t, 1, etcdtest.Options{NoSync: true, QuotaBytes: 4 << 20})
		s := open(t, client(t, c.Config()), patient)
		body := bytes.Repeat([]byte("x"), backend.MaxBody)
		recs := make([]backend.Record, 64)
		for n := range recs {
			recs[n] = create(t, s, n)
		}
		var wg sync.WaitGroup
		for _, rec := range recs {
			rec.Body = body
			wg.Go(func() {
				for {
					v, err := s.Put(t.Context(), rec, backend.IfVersion(rec.Version))
					now, readErr := s.Get(t.Context(), rec.ID)
					if readErr != nil {
						t.Error(readErr)
						return
					}
					switch {
					case err == nil:
						rec.Version = v
					case errors.Is(err, backend.ErrIndeterminate):
						return // a busy server has let it time out: it may come later
					case !errors.Is(err, backend.ErrUnavailable):
						t.Error(err)
					}
					if now.Version != rec.Version {
						t.Errorf("after %v there is version %d, not %d", err, now.Version, rec.Version)
						return
					}
					if err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// Who is told that usage was not added adds it again.
func TestUsageThatTheQuotaRefusesIsNotAdded(t *testing.T) {
	t.Parallel()
	for range rounds() {
		c := cluster(t, 1, etcdtest.Options{NoSync: true, QuotaBytes: 4 << 20})
		s := open(t, client(t, c.Config()), patient)
		var f fates
		f.until64(t, func(n int) (backend.ID, error) {
			batch := make([]backend.Usage, 1000) // 40 kB
			for i := range batch {
				binary.BigEndian.PutUint64(batch[i].ID[:], uint64(n)+1)
				binary.BigEndian.PutUint64(batch[i].ID[8:], uint64(i))
				batch[i].N = 1
			}
			return batch[0].ID, s.AddUsage(t.Context(), batch)
		})
		count := func(ids []backend.ID, n uint64) {
			got, err := s.Usage(t.Context(), ids)
			require.NoError(t, err)
			wrong := 0
			for _, u := range got {
				if u.N != n {
					wrong++
				}
			}
			require.Zero(t, wrong, "of %d that must have been counted %d times", len(ids), n)
		}
		count(f.made, 1)
		count(f.gone, 0)
	}
}

// Usage that waits and cannot be folded for want of space does not keep records that
// have none of it: what goes makes space.
func TestWithTheQuotaUsedUpRecordsCanGo(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true, QuotaBytes: 2 << 20})
	admin := client(t, c.Config())
	s := open(t, admin, patient)
	rec, used := create(t, s, 0), create(t, s, 1)
	old := record(2)
	old.PurgeAt = 1
	_, err := s.Put(t.Context(), old, backend.IfAbsent())
	require.NoError(t, err)
	left(t, admin, 1, backend.Usage{ID: used.ID, N: 1})
	for n := 10; err == nil || errors.Is(err, backend.ErrIndeterminate); n++ { // a busy server lets one time out
		full := record(n)
		full.Body = bytes.Repeat([]byte("x"), backend.MaxBody)
		_, err = s.Put(t.Context(), full, backend.IfAbsent())
	}
	only(t, err, backend.ErrUnavailable)
	only(t, s.Delete(t.Context(), used.ID, used.Version), backend.ErrUnavailable)
	only(t, s.Maintain(t.Context()), backend.ErrUnavailable)
	require.NoError(t, s.Delete(t.Context(), rec.ID, rec.Version))
	n, err := s.Purge(t.Context(), time.Now(), 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}
