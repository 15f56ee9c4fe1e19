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

	var last time.Time
	var asked, told int64
	n := 0
	err := s.Watch(ctx, nil, func(b backend.Batch) error {
		if n++; n > 2 { // the second may be of the same moment as the first
			require.Greater(t, b.AsOf.Sub(last), every*9/10)
			require.EqualValues(t, 1, w.asked.Load()-asked, "questions for one proof")
			require.Zero(t, w.told.Load()-told, "nothing has changed: the watch is as far as it must be")
		}
		last, asked, told = b.AsOf, w.asked.Load(), w.told.Load()
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
	f.sees(t, rec)
	require.False(t, claimed.Load(), "a proof before the change was told")
	require.Greater(t, w.streams.Load(), streams, "over another stream")
	f.proves(t)
	f.lossless(t)
}

type watcher func(context.Context, backend.Token, func(backend.Batch) error) error

func (w watcher) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	return w(ctx, from, fn)
}
