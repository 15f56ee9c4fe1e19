package etcd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestWhatAFailureIsTakenFor(t *testing.T) {
	lost := status.Error(codes.Unavailable, "error reading from server: EOF")
	for name, c := range map[string]struct {
		err   error
		write error // the sentinel of a write
		again bool  // whether another attempt makes sense
		ends  bool  // whether it ends a Watch
	}{
		"no space":               {err: rpctypes.ErrNoSpace, write: backend.ErrIndeterminate},
		"too large":              {err: rpctypes.ErrRequestTooLarge, write: backend.ErrUnavailable},
		"too many operations":    {err: rpctypes.ErrTooManyOps, write: backend.ErrUnavailable},
		"too many requests":      {err: rpctypes.ErrTooManyRequests, write: backend.ErrUnavailable, again: true},
		"no leader":              {err: rpctypes.ErrNoLeader, write: backend.ErrUnavailable, again: true},
		"permission denied":      {err: rpctypes.ErrPermissionDenied, write: backend.ErrUnavailable, ends: true},
		"invalid token":          {err: rpctypes.ErrInvalidAuthToken, write: backend.ErrUnavailable},
		"old auth revision":      {err: rpctypes.ErrAuthOldRevision, write: backend.ErrUnavailable},
		"no user":                {err: rpctypes.ErrUserEmpty, write: backend.ErrUnavailable, ends: true},
		"corrupt cluster":        {err: rpctypes.ErrCorrupt, write: backend.ErrUnavailable},
		"a learner":              {err: rpctypes.ErrGRPCNotSupportedForLearner, write: backend.ErrUnavailable},
		"timeout":                {err: rpctypes.ErrTimeout, write: backend.ErrIndeterminate, again: true},
		"timeout, leader failed": {err: rpctypes.ErrTimeoutDueToLeaderFail, write: backend.ErrIndeterminate, again: true},
		"timeout, lost":          {err: rpctypes.ErrTimeoutDueToConnectionLost, write: backend.ErrIndeterminate, again: true},
		"leader changed":         {err: rpctypes.ErrLeaderChanged, write: backend.ErrIndeterminate, again: true},
		"stopped":                {err: rpctypes.ErrStopped, write: backend.ErrIndeterminate, again: true},
		"unhealthy":              {err: rpctypes.ErrUnhealthy, write: backend.ErrIndeterminate, again: true},
		"connection lost":        {err: lost, write: backend.ErrIndeterminate, again: true},
		"a deadline of ours":     {err: context.DeadlineExceeded, write: backend.ErrIndeterminate, again: true},
		"the server's deadline":  {err: status.Error(codes.DeadlineExceeded, "x"), write: backend.ErrIndeterminate, again: true},
		"cancelled by a server":  {err: status.Error(codes.Canceled, "x"), write: backend.ErrIndeterminate},
		"internal":               {err: status.Error(codes.Internal, "x"), write: backend.ErrIndeterminate},
		"unknown":                {err: errors.New("something else"), write: backend.ErrIndeterminate},
		"a watch denied":         {err: errors.New("rpc error: code = PermissionDenied desc = etcdserver: permission denied"), write: backend.ErrIndeterminate, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			alive := context.Background()
			over, cancel := context.WithCancel(alive)
			cancel()

			got := etcd.WriteFailure(alive, c.err)
			require.ErrorIs(t, got, c.write)
			only(t, got, c.write)
			require.NotErrorIs(t, got, context.DeadlineExceeded, "the caller's has not passed")
			require.ErrorContains(t, got, "etcd: write")
			require.ErrorContains(t, got, rpctypes.ErrorDesc(c.err))

			// Of what was sent before the context ended nothing else is known.
			got = etcd.WriteFailure(over, c.err)
			require.ErrorIs(t, got, context.Canceled)
			if c.write == backend.ErrIndeterminate {
				only(t, got, backend.ErrIndeterminate)
			} else {
				only(t, got, nil)
			}

			// Before it was sent, any failure is a failure to read.
			for _, got := range []error{etcd.ReadFailure(alive, c.err), etcd.WriteFailure(alive, etcd.Unsent(c.err))} {
				only(t, got, backend.ErrUnavailable)
				require.NotErrorIs(t, got, context.DeadlineExceeded)
			}
			for _, got := range []error{etcd.ReadFailure(over, c.err), etcd.WriteFailure(over, etcd.Unsent(c.err))} {
				only(t, got, nil)
				require.ErrorIs(t, got, context.Canceled)
			}
			require.Equal(t, c.again, etcd.Again(alive, c.err))
			require.False(t, etcd.Again(over, c.err))
			require.Equal(t, c.ends, etcd.Hopeless(c.err))
		})
	}
	for _, answer := range []error{backend.ErrNotFound, backend.ErrConflict, backend.ErrInvalid, backend.ErrCorrupt, backend.ErrClosed} {
		require.Equal(t, answer, etcd.WriteFailure(context.Background(), answer))
		require.Equal(t, answer, etcd.WriteFailure(context.Background(), etcd.Unsent(answer)))
		require.Equal(t, answer, etcd.ReadFailure(context.Background(), answer))
	}
	require.NoError(t, etcd.WriteFailure(context.Background(), nil))
	require.NoError(t, etcd.ReadFailure(context.Background(), nil))

	// The server's clock is a moment ahead of the caller's.
	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, etcd.ReadFailure(soon, status.Error(codes.DeadlineExceeded, "x")), context.DeadlineExceeded)
}

// only fails unless err is this sentinel and no other; nil means none.
func only(t *testing.T, err, want error) {
	t.Helper()
	for _, s := range []error{
		backend.ErrNotFound, backend.ErrConflict, backend.ErrIndeterminate, backend.ErrUnavailable, backend.ErrClosed, backend.ErrInvalid, backend.ErrCorrupt,
	} {
		require.Equal(t, s == want, errors.Is(err, s), "%v in (%v)", s, err)
	}
}

func TestATokenIsOfOneHistory(t *testing.T) {
	here := etcd.Position{Epoch: 1, Cluster: 2, Term: 3, Revision: 100}
	for name, c := range map[string]struct {
		now   etcd.Position
		goes  bool
		token etcd.Position
	}{
		"the same place":         {here, true, here},
		"later":                  {etcd.Position{Epoch: 1, Cluster: 2, Term: 4, Revision: 200}, true, here},
		"another store":          {etcd.Position{Epoch: 9, Cluster: 2, Term: 3, Revision: 200}, false, here},
		"another cluster":        {etcd.Position{Epoch: 1, Cluster: 9, Term: 3, Revision: 200}, false, here},
		"a past that came back":  {etcd.Position{Epoch: 1, Cluster: 2, Term: 3, Revision: 99}, false, here},
		"a new life of a backup": {etcd.Position{Epoch: 1, Cluster: 2, Term: 2, Revision: 200}, false, here},
		"a store that is gone":   {etcd.Position{Epoch: 0, Cluster: 2, Term: 3, Revision: 200}, false, here},
		"made since":             {here, true, etcd.Position{Epoch: 0, Cluster: 2, Term: 3, Revision: 49}},
		"made before":            {here, false, etcd.Position{Epoch: 0, Cluster: 2, Term: 3, Revision: 50}},
		"still empty":            {etcd.Position{Epoch: 0, Cluster: 2, Term: 3, Revision: 101}, true, etcd.Position{Epoch: 0, Cluster: 2, Term: 3, Revision: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.goes, etcd.Continues(c.now, 50, c.token.Token()))
		})
	}
	for _, bad := range []backend.Token{nil, {}, {1, 2, 3}, here.Token()[1:], append(here.Token(), 0), append(backend.Token{9}, here.Token()[1:]...)} {
		require.False(t, etcd.Continues(here, 50, bad))
	}
}

func TestARecordsValue(t *testing.T) {
	rec := backend.Record{
		ID: backend.ID{1}, Kind: 200, Owner: "o\x00wner", Parent: backend.ID{2}, Created: math.MaxInt64, Expires: 1, PurgeAt: 1 << 40,
		Labels: []string{"\x00", "a label"}, Body: []byte("body"), Version: 7,
	}
	value, nonce := etcd.Encode(rec)
	got, err := etcd.Decode(rec.ID, bytes.Clone(value), 7)
	require.NoError(t, err)
	require.Equal(t, rec, got)
	require.True(t, etcd.Written(value, nonce))
	_, other := etcd.Encode(rec)
	require.False(t, etcd.Written(value, other), "each write has a nonce of its own")
	require.False(t, etcd.Written(nil, nonce))
	for i := range value {
		damaged := bytes.Clone(value)
		damaged[i] ^= 1
		_, err := etcd.Decode(rec.ID, damaged, 7)
		require.ErrorIs(t, err, backend.ErrCorrupt)
		_, err = etcd.Decode(rec.ID, value[:i], 7)
		require.ErrorIs(t, err, backend.ErrCorrupt)
	}
	_, err = etcd.Decode(backend.ID{3}, value, 7)
	require.ErrorIs(t, err, backend.ErrCorrupt, "under another key it is no record")

	later := bytes.Clone(value)
	later[0] = 3
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write(rec.ID[:])
	sum.Write(later[:len(later)-4])
	binary.BigEndian.PutUint32(later[len(later)-4:], sum.Sum32())
	_, err = etcd.Decode(rec.ID, later, 7)
	only(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "has layout 3, and this version knows layouts 1 to 2")
}

// No key of one list may fall into the range of another.
func TestListsDoNotOverlap(t *testing.T) {
	names := []string{"a", "a\x00", "a\x00b", "b", "\xff", "\xff\xff", strings.Repeat("\xff", backend.MaxLabel), strings.Repeat("a", 256), strings.Repeat("a", 255), "\x00", "\x00\x01a"}
	all := backend.ID(bytes.Repeat([]byte{0xff}, len(backend.ID{})))
	for _, kind := range []backend.Kind{1, 255} {
		for _, in := range names {
			byOwner, ownerEnd := etcd.Range("p/", backend.Query{Kind: kind, Owner: in})
			byLabel, labelEnd := etcd.Range("p/", backend.Query{Kind: kind, Label: in})
			for _, k := range []backend.Kind{1, 254, 255} {
				for _, name := range names {
					for _, created := range []int64{0, math.MaxInt64} {
						for _, id := range []backend.ID{{15: 1}, all} {
							rec := backend.Record{ID: id, Kind: k, Owner: name, Parent: id, Created: created, Expires: 1, PurgeAt: 1, Labels: []string{name}}
							owners, labels := 0, 0
							for _, key := range etcd.IndexKeys("p/", rec) {
								if byOwner <= key && key < ownerEnd {
									owners++
								}
								if byLabel <= key && key < labelEnd {
									labels++
								}
							}
							want := 0
							if k == kind && name == in {
								want = 1
							}
							require.Equal(t, [2]int{want, want}, [2]int{owners, labels}, "the lists of %q have keys of %q", in, name)
						}
					}
				}
			}
		}
	}
	require.Equal(t, "b", etcd.After([]byte("a\xff\xff")))
	require.Equal(t, "\x00", etcd.After([]byte("\xff\xff")))
}

func TestAnUpdateTouchesOnlyWhatMoves(t *testing.T) {
	gone, added := etcd.Moves([]string{"a", "b"}, []string{"b", "c"})
	require.Equal(t, []string{"a"}, gone)
	require.Equal(t, []string{"c"}, added)
	gone, added = etcd.Moves([]string{"a"}, []string{"a"})
	require.Empty(t, slices.Concat(gone, added))
}

// However many labels they have, what one transaction removes fits into it.
func TestHowManyRecordsGoAtOnce(t *testing.T) {
	rec := backend.Record{ID: backend.ID{1}, Kind: 1, Owner: "o", Parent: backend.ID{2}, Expires: 1, PurgeAt: 1}
	for labels, want := range map[int]int{0: 18, 1: 15, 5: 10, 56: 2, 57: 1, backend.MaxLabels: 1} {
		rec.Labels = make([]string, labels)
		require.Equal(t, want, etcd.Erasable(slices.Repeat([]backend.Record{rec}, 100)), "with %d labels", labels)
	}
	require.Equal(t, 3, etcd.Erasable(make([]backend.Record, 3)))
}

func TestUsageAddsUp(t *testing.T) {
	a, b := backend.ID{1}, backend.ID{2}
	got := etcd.Merge([]backend.Usage{{ID: a, N: 1, Last: 5}, {ID: b, N: 2, Last: 9}, {ID: a, N: 3, Last: 4}})
	sort.Slice(got, func(i, j int) bool { return got[i].N > got[j].N })
	require.Equal(t, []backend.Usage{{ID: a, N: 4, Last: 5}, {ID: b, N: 2, Last: 9}}, got)
	back, ok := etcd.DecodeEntries([]byte(etcd.EncodeEntries(got)))
	require.True(t, ok)
	require.Equal(t, got, back)
	for _, bad := range []string{"", "\x02", etcd.EncodeEntries(got)[:40]} {
		_, ok := etcd.DecodeEntries([]byte(bad))
		require.False(t, ok)
	}
}

func TestNewRefuses(t *testing.T) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	_, err = etcd.New(nil, etcd.Options{})
	require.ErrorContains(t, err, "no client")
	_, err = etcd.New(client, etcd.Options{Timeout: -1})
	require.ErrorContains(t, err, "negative")
	_, err = etcd.New(client, etcd.Options{Prefix: strings.Repeat("x", 257)})
	require.ErrorContains(t, err, "257 bytes")
}

// With no member to be reached, a write is known not to have been made.
func TestWithoutAServer(t *testing.T) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	s, err := etcd.New(client, etcd.Options{Timeout: 100 * time.Millisecond})
	require.NoError(t, err)
	rec := backend.Record{ID: backend.ID{1}, Kind: 1}
	await.Quick(t, "calls that Timeout bounds, each of them,", 10*time.Second, func() {
		_, err = s.Put(t.Context(), rec, backend.IfAbsent())
		only(t, err, backend.ErrUnavailable)
		_, err = s.Put(t.Context(), rec, backend.IfVersion(1))
		only(t, err, backend.ErrUnavailable)
		only(t, s.Delete(t.Context(), rec.ID, 1), backend.ErrUnavailable)
		only(t, s.AddUsage(t.Context(), []backend.Usage{{ID: rec.ID, N: 1}}), backend.ErrUnavailable)
		_, err = s.Get(t.Context(), rec.ID)
		only(t, err, backend.ErrUnavailable)
		_, err = s.List(t.Context(), backend.Query{Kind: 1})
		only(t, err, backend.ErrUnavailable)
		_, err = s.Purge(t.Context(), time.Now(), 1)
		only(t, err, backend.ErrUnavailable)
		_, err = s.Usage(t.Context(), []backend.ID{rec.ID})
		only(t, err, backend.ErrUnavailable)
		only(t, s.Maintain(t.Context()), backend.ErrUnavailable)
	})

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.Put(short, rec, backend.IfAbsent())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	only(t, err, nil)
	err = s.Watch(short, nil, func(backend.Batch) error { return nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, s.Close())
}
