package etcdtest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// long makes some tests do more of the same: make proof sets it.
var long = os.Getenv("FOB_LONG") != ""

// patient is for stores whose calls nothing holds up but a busy machine: they may take
// as long as that makes them.
var patient = etcd.Options{Timeout: 10 * time.Minute}

func record(n int) backend.Record {
	var id backend.ID
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return backend.Record{ID: id, Kind: 1, Owner: fmt.Sprint("owner ", n%3), Created: 1_764_000_000_000 + int64(n), Body: fmt.Append(nil, "body ", n)}
}

func create(t testing.TB, s backend.Store, n int) backend.Record {
	t.Helper()
	rec := record(n)
	rec.Version = made(t, s, rec, backend.IfAbsent())
	return rec
}

func mustPut(t testing.TB, s backend.Store, rec backend.Record) uint64 {
	t.Helper()
	return made(t, s, rec, backend.IfVersion(rec.Version))
}

// made makes a write and returns its version. Nobody else writes the record, and a
// busy cluster may be without a leader for a while: what could not be made is made
// again, and what may have been made is looked at.
func made(t testing.TB, s backend.Store, rec backend.Record, cond backend.Cond) (version uint64) {
	t.Helper()
	unknown := false
	await.Until(t, "a write", func() bool {
		v, err := s.Put(t.Context(), rec, cond)
		switch {
		case err == nil:
			version = v
			return true
		case errors.Is(err, backend.ErrIndeterminate):
			unknown = true
		case errors.Is(err, backend.ErrUnavailable):
		case unknown && errors.Is(err, backend.ErrConflict):
			version = reread(s, rec.ID)
			return true
		default:
			require.NoError(t, err)
		}
		return false
	})
	return version
}

// feed is a Watch in a goroutine of its own, and what it has delivered.
type feed struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // read it after done

	mu      sync.Mutex // guards what is below
	latest  map[backend.ID]uint64
	batches int
	resets  int
	asOf    time.Time
	token   backend.Token
	wrong   string
}

func watch(t testing.TB, w backend.Watcher, from backend.Token) *feed {
	return watchWith(context.Background(), t, w, from)
}

func watchWith(ctx context.Context, t testing.TB, w backend.Watcher, from backend.Token) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{cancel: cancel, done: make(chan struct{}), latest: make(map[backend.ID]uint64)}
	go func() {
		defer close(f.done)
		f.err = w.Watch(ctx, from, func(b backend.Batch) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.batches++
			if b.Reset {
				f.resets++
			}
			for _, c := range b.Changes {
				if c.Version < f.latest[c.ID] {
					f.wrong = fmt.Sprintf("version %d of %x after version %d", c.Version, c.ID, f.latest[c.ID])
				}
				f.latest[c.ID] = c.Version
			}
			if b.AsOf.Before(f.asOf) {
				f.wrong = "AsOf went back"
			}
			f.asOf, f.token = b.AsOf, b.Token
			return nil
		})
	}()
	t.Cleanup(f.stop)
	return f
}

func (f *feed) stop() {
	f.cancel()
	<-f.done
}

// state reads what the feed has delivered.
func state[T any](f *feed, read func(f *feed) T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return read(f)
}

// await waits until something holds of the feed, which must go on.
func (f *feed) await(t testing.TB, what string, holds func(f *feed) bool) {
	t.Helper()
	await.Until(t, "of the feed, "+what, func() bool {
		if state(f, holds) {
			return true
		}
		select {
		case <-f.done:
			require.FailNow(t, "the feed ended before "+what, "%v", f.err)
		default:
		}
		return false
	})
}

func (f *feed) begun(t testing.TB) {
	t.Helper()
	f.await(t, "its first Batch", func(f *feed) bool { return f.batches > 0 })
}

func (f *feed) sees(t testing.TB, rec backend.Record) {
	t.Helper()
	f.await(t, "a change", func(f *feed) bool { return f.latest[rec.ID] >= rec.Version })
}

// proves waits for a proof of an instant from now on.
func (f *feed) proves(t testing.TB) {
	t.Helper()
	now := time.Now()
	f.await(t, "a new proof", func(f *feed) bool { return f.asOf.After(now) })
}

// lossless fails where the feed sent a Reset or broke an order.
func (f *feed) lossless(t testing.TB) {
	t.Helper()
	require.Zero(t, state(f, func(f *feed) int { return f.resets }), "Resets")
	require.Empty(t, state(f, func(f *feed) string { return f.wrong }))
}
