package fleettest_test

import (
	"context"
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// BenchmarkStart is a new process over a store with many revoked tokens (FOB_MARKS of them):
// when it gives its first answers, right ones, and when it knows all revocations; how many
// reports of its progress there were meanwhile; and what a revocation takes in its memory.
func BenchmarkStart(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres", "etcd"} {
		b.Run(kind, func(b *testing.B) {
			n := 20_000
			if set, err := strconv.Atoi(os.Getenv("FOB_MARKS")); err == nil {
				n = set
			}
			at := engines.get(b, kind).fresh(b)
			before := stormManager(b, at)
			good, err := before.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User("good")})
			require.NoError(b, err)
			bad, err := before.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User("bad")})
			require.NoError(b, err)
			_, err = before.Revoke(b.Context(), bad.Token.ID(), "left")
			require.NoError(b, err)
			require.NoError(b, before.Close())
			putMarks(b, at, n-1)
			for b.Loop() {
				start(b, at, n, good.Access.Reveal(), bad.Access.Reveal())
			}
		})
	}
}

func start(b *testing.B, at storeAt, n int, good, bad string) {
	store, done, err := at.open(b.Context())
	require.NoError(b, err)
	defer done()
	heap, began := heapInUse(), time.Now()
	var reports atomic.Int64
	m, err := fob.New(store, fob.Config{
		Prefix:   "acme_live",
		Observer: fob.ObserverFunc(func(_ context.Context, e fob.Event) { reports.Add(int64(min(e.Count, 1))) }),
		Tokens:   &fob.TokenConfig{Issuer: "https://issuer.test", Audiences: []string{"api"}, SealKey: []byte(strings.Repeat("s", 32))},
	})
	require.NoError(b, err)
	defer m.Close()
	var first time.Duration
	for answers := 0; ; answers++ {
		_, err = m.Fresh().Verify(b.Context(), bad)
		require.ErrorIs(b, err, fob.ErrRevoked)
		_, err = m.Verify(b.Context(), bad)
		require.ErrorIs(b, err, fob.ErrRevoked)
		_, err = m.Verify(b.Context(), good)
		require.NoError(b, err)
		if answers == 0 {
			first = time.Since(began)
		}
		h := m.Health()
		if h.FeedAge >= 0 && !h.CatchingUp {
			require.Equal(b, n, h.Revocations)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s-until-all")
	b.ReportMetric(ms(first), "ms-until-first")
	b.ReportMetric(float64(reports.Load()), "reports")
	b.ReportMetric(float64(heapInUse()-heap)/float64(n), "bytes/mark")
	b.ReportMetric(0, "ns/op")
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// numberedMark is the record of a token that was revoked.
func numberedMark(i int) backend.Record {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(i))
	rec := backend.Record{
		ID: record.Named(record.Mark, "token", string(number[:])), Kind: record.Mark,
		Created: 1_700_000_000_000 + int64(i), PurgeAt: time.Now().Add(24 * time.Hour).UnixMilli(),
	}
	(&marks.Mark{Before: clock.Forever, Reason: "logged out"}).Encode(&rec)
	return rec
}

// putMarks puts n revocations into a store.
func putMarks(b *testing.B, at storeAt, n int) {
	if at.Kind == "postgres" { // one after the other, ten million would take an hour
		conn, err := pgx.Connect(b.Context(), at.URL)
		require.NoError(b, err)
		defer conn.Close(b.Context())
		i := 0
		_, err = conn.CopyFrom(b.Context(), pgx.Identifier{at.Schema, "record"},
			[]string{"id", "kind", "owner", "created", "expires", "purge_at", "version", "body"},
			pgx.CopyFromFunc(func() ([]any, error) {
				if i == n {
					return nil, nil
				}
				rec := numberedMark(i)
				i++
				return []any{rec.ID[:], int16(rec.Kind), []byte{}, rec.Created, rec.Expires, rec.PurgeAt, int64(1), rec.Body}, nil
			}))
		require.NoError(b, err)
		_, err = conn.Exec(b.Context(), "VACUUM ANALYZE "+pgx.Identifier{at.Schema, "record"}.Sanitize())
		require.NoError(b, err)
		return
	}
	store, done, err := at.open(b.Context())
	require.NoError(b, err)
	defer done()
	inParallel(512, n, func(i int) {
		if _, err := store.Put(b.Context(), numberedMark(i), backend.IfAbsent()); err != nil {
			b.Error(err)
		}
	})
}
