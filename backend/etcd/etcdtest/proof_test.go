package etcdtest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// wire sees what a client asks, and can make the streams that it has deaf: they stay open
// and take what they are told, and nothing that the server says arrives.
type wire struct {
	asked   atomic.Int64 // requests, apart from what goes over a stream
	told    atomic.Int64 // messages to the server over streams
	streams atomic.Int64
	deaf    atomic.Int64 // the streams up to this number
}

func (w *wire) config(cfg clientv3.Config) clientv3.Config {
	cfg.DialOptions = append(cfg.DialOptions,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			w.asked.Add(1)
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, cc, method, opts...)
			return &stream{s, w, w.streams.Add(1)}, err
		}))
	return cfg
}

// deafen makes all streams that there are deaf.
func (w *wire) deafen() { w.deaf.Store(w.streams.Load()) }

type stream struct {
	grpc.ClientStream
	wire   *wire
	number int64
}

func (s *stream) SendMsg(m any) error {
	s.wire.told.Add(1)
	return s.ClientStream.SendMsg(m)
}

func (s *stream) RecvMsg(m any) error {
	for {
		err := s.ClientStream.RecvMsg(m)
		if err != nil || s.number > s.wire.deaf.Load() {
			return err
		}
	}
}

// An update by who has read or written the record a moment ago is one request. What is
// remembered is not what a Get answers, and the condition of the update is as ever.
func TestAnUpdateOfWhatWasJustReadIsOneRequest(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	var w wire
	s, other := open(t, client(t, w.config(c.Config())), patient), open(t, client(t, c.Config()), patient)
	rec := create(t, other, 1)
	require.Zero(t, rec.PurgeAt)
	await.Until(t, "an update with one request", func() bool { // a busy machine forgets between the two
		got, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		before := w.asked.Load()
		got.PurgeAt++ // it moves in a list
		rec.Version, err = s.Put(t.Context(), got, backend.IfVersion(got.Version))
		require.NoError(t, err)
		rec.PurgeAt = got.PurgeAt
		return w.asked.Load() == before+1
	})
	purged, err := s.Purge(t.Context(), time.UnixMilli(rec.PurgeAt-1), 10)
	require.NoError(t, err)
	require.Zero(t, purged, "it is not any longer where it was")

	wrong := rec
	wrong.Owner = "another"
	_, err = s.Put(t.Context(), wrong, backend.IfVersion(rec.Version))
	require.ErrorIs(t, err, backend.ErrInvalid, "what never changes is compared all the same")
	next := mustPut(t, other, rec)
	_, err = s.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.ErrorIs(t, err, backend.ErrConflict)
	got, err := s.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	require.Equal(t, next, got.Version)
	require.NoError(t, other.Delete(t.Context(), rec.ID, next))
	_, err = s.Put(t.Context(), rec, backend.IfVersion(next))
	require.ErrorIs(t, err, backend.ErrNotFound)
}

// An idle feed asks once for each proof, and for a proof as often as it is wanted; while
// changes come, oftener.
func TestAFeedAsksAsOftenAsProofsAreWanted(t *testing.T) {
	t.Parallel()
	const every = 500 * time.Millisecond
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	var w wire
	s := open(t, client(t, w.config(c.Config())), etcd.Options{})
	writer := open(t, client(t, c.Config()), patient)
	rec := create(t, writer, 1)
	ctx := backend.WithProofEvery(t.Context(), every)

	began := time.Now()
	var asked, told int64
	n := 0
	err := s.Watch(ctx, nil, func(b backend.Batch) error {
		if n++; n > 2 { // the second may be of the same moment as the first
			require.GreaterOrEqual(t, b.AsOf.Sub(began), time.Duration(n-2)*every, "proof %d", n)
			require.EqualValues(t, 1, w.asked.Load()-asked, "questions for one proof")
			require.Zero(t, w.told.Load()-told, "nothing has changed: the watch is as far as it must be")
		}
		asked, told = w.asked.Load(), w.told.Load()
		if n == 6 {
			return errSeen
		}
		return nil
	})
	require.ErrorIs(t, err, errSeen)

	// A loaded machine makes some proofs late, not all.
	f := watchWith(ctx, t, s, nil)
	f.begun(t)
	await.Until(t, "a proof that comes sooner, while there are changes", func() bool {
		before := state(f, func(f *feed) time.Time { return f.asOf })
		rec.Version = mustPut(t, writer, rec)
		f.sees(t, rec)
		f.await(t, "another proof", func(f *feed) bool { return f.asOf.After(before) })
		return state(f, func(f *feed) time.Time { return f.asOf }).Sub(before) < every/2
	})
	f.lossless(t)
}

// A watch on which nothing arrives any more, while reads are answered, proves nothing that
// it has not told of, and is replaced.
func TestAWatchThatSilentlyDiedIsNoticed(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	var w wire
	s := open(t, client(t, w.config(c.Config())), etcd.Options{})
	writer := open(t, client(t, c.Config()), patient)
	rec := create(t, writer, 1)
	var written atomic.Pointer[time.Time] // when the change was that the watch did not hear
	var claimed atomic.Bool
	told := make(chan uint64, 100)
	f := watchWith(backend.WithProofEvery(t.Context(), 500*time.Millisecond), t, watcher(func(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
		return s.Watch(ctx, from, func(b backend.Batch) error {
			for _, ch := range b.Changes {
				told <- ch.Version
			}
			if at := written.Load(); at != nil && len(b.Changes) == 0 && len(told) == 0 && b.AsOf.After(*at) {
				claimed.Store(true)
			}
			return fn(b)
		})
	}), nil)
	f.begun(t)
	rec.Version = mustPut(t, writer, rec)
	f.sees(t, rec)
	f.proves(t)
	for len(told) > 0 {
		<-told
	}
	w.deafen()
	streams := w.streams.Load()
	rec.Version = mustPut(t, writer, rec)
	at := time.Now()
	written.Store(&at)
	f.await(t, "the change", func(f *feed) bool { return claimed.Load() || f.latest[rec.ID] >= rec.Version })
	require.False(t, claimed.Load(), "a proof before the change was told")
	require.Greater(t, w.streams.Load(), streams, "over another stream")
	f.proves(t)
	f.lossless(t)
}

type watcher func(context.Context, backend.Token, func(backend.Batch) error) error

func (w watcher) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	return w(ctx, from, fn)
}
