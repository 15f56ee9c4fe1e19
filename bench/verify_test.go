package bench_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	bopts "github.com/dgraph-io/badger/v4/options"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// live is how many keys are live.
const live = 10_000

func newManager(b testing.TB, store backend.Store, cfg fob.Config) *fob.Manager {
	b.Helper()
	cfg.Prefix = "acme_live"
	cfg.SweepInterval = -1
	m, err := fob.New(store, cfg)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, m.Close()) })
	// When the feed begins, what was remembered before is forgotten.
	if _, follows := backend.As[backend.Watcher](store); follows {
		await.Until(b, "the feed", func() bool { return m.CacheStats().FeedAge >= 0 })
	}
	return m
}

func openBadger(b testing.TB, dir string) *badger.Store {
	b.Helper()
	s, err := badger.Open(dir, badger.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	return s
}

// issue makes n keys for some subjects, from many goroutines so that a durable store commits them
// together.
func issue(b testing.TB, m *fob.Manager, n, subjects int) []string {
	b.Helper()
	texts := make([]string, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				secret, _, err := m.IssueKey(context.Background(), fob.KeySpec{
					Subject: fob.App(fmt.Sprintf("app-%d", i%int64(subjects))), Scopes: fob.Scopes{"orders:read", "orders:list"},
				})
				if err != nil {
					b.Error(err)
					return
				}
				texts[i] = secret.Reveal()
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	// One behind the other, as the blocks of the floor are: what a server has just
	// read from a connection is near.
	all := strings.Join(texts, "")
	for i, text := range texts {
		texts[i], all = all[:len(text)], all[len(text):]
	}
	return texts
}

// counted counts the reads of one goroutine.
type counted struct {
	backend.Store
	gets int
}

func (s *counted) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.gets++
	return s.Store.Get(ctx, id)
}

func (s *counted) Unwrap() backend.Store { return s.Store }

// verify asks for each text in turn, and fails on any that is not accepted.
func verify(b *testing.B, m *fob.Manager, texts []string) {
	b.Helper()
	b.ReportAllocs()
	ctx := b.Context()
	i := 0
	for b.Loop() {
		cred, err := m.Verify(ctx, texts[i])
		if err != nil || cred == nil {
			b.Fatal("not accepted: ", err)
		}
		if i++; i == len(texts) {
			i = 0
		}
	}
}

// BenchmarkFloor is what no verification can go below.
func BenchmarkFloor(b *testing.B) {
	texts := issue(b, newManager(b, memory.New(), fob.Config{}), live, 1000)
	byDigest := make(map[[sha256.Size]byte]*int, live)
	blocks := make([][49]byte, live)
	for i, text := range texts {
		copy(blocks[i][:], text[len(text)-55:])
		byDigest[sha256.Sum256(blocks[i][:])] = new(int)
	}
	b.Run("sha256_block", func(b *testing.B) {
		b.ReportAllocs()
		i, sum := 0, byte(0)
		for b.Loop() {
			d := sha256.Sum256(blocks[i][:])
			sum |= d[0]
			if i++; i == live {
				i = 0
			}
		}
		if sum == 0 {
			b.Fatal("nothing was hashed")
		}
	})
	b.Run("sha256_block_and_map", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if byDigest[sha256.Sum256(blocks[i][:])] == nil {
				b.Fatal("not found")
			}
			if i++; i == live {
				i = 0
			}
		}
	})
}

func BenchmarkVerifyMalformed(b *testing.B) {
	m := newManager(b, memory.New(), fob.Config{})
	text := issue(b, m, 1, 1)[0]
	at := len(text) - 20
	typo := text[:at] + "x" + text[at+1:]
	if typo == text {
		typo = text[:at] + "y" + text[at+1:]
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"checksum": {typo, errs.ErrKeyChecksum},
		"alphabet": {text[:at] + "-" + text[at+1:], errs.ErrKeyAlphabet},
		"length":   {text[:at], errs.ErrKeyLength},
		"prefix":   {"evil" + text[4:], errs.ErrKeyPrefix},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				if _, err := m.Verify(ctx, c.text); err != c.want {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	m := newManager(b, memory.New(), fob.Config{MaxStaleness: time.Hour, UsageInterval: time.Hour})
	texts := issue(b, m, live, 1000)
	for _, text := range texts {
		_, err := m.Verify(b.Context(), text)
		require.NoError(b, err)
	}
	b.Run("uniform", func(b *testing.B) { verify(b, m, texts) })
	b.Run("one_hot_key", func(b *testing.B) { verify(b, m, texts[:1]) })
	b.Run("wrong_secret", func(b *testing.B) {
		// A sound text with the ID of a cached key: refused without the store.
		block := keytext.Block(texts[0])
		forged := keytext.Format("acme_live", [keytext.IDLen]byte(block[1:]), keytext.NewSecret())
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			if _, err := m.Verify(ctx, forged); err != fob.ErrUnknown {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		var start atomic.Uint32
		b.RunParallel(func(pb *testing.PB) {
			for i := int(start.Add(1)) * 3571; pb.Next(); i++ {
				if _, err := m.Verify(context.Background(), texts[i%live]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkVerifyUncachedMemory asks for 10,000 keys in turn, so that no key is
// found in the cache. With room for one entry, it is the cost of a verification
// from the store; with room for 4,096, and 1,000 subjects, that of a cache which
// is too small: each miss also throws out an entry that has grown cold.
func BenchmarkVerifyUncachedMemory(b *testing.B) {
	for _, c := range []struct {
		name              string
		entries, subjects int
	}{{"one_entry", 1, 1}, {"4096_entries", 4096, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			store := &counted{Store: memory.New()}
			texts := issue(b, newManager(b, store, fob.Config{}), live, c.subjects)
			m := newManager(b, store, fob.Config{CacheEntries: c.entries, MaxStaleness: time.Hour, UsageInterval: time.Hour})
			store.gets = 0
			verify(b, m, texts)
			if store.gets < b.N {
				b.Fatalf("%d reads of the store for %d verifications", store.gets, b.N)
			}
		})
	}
}

// BenchmarkVerifyUncachedBadger stands beside a bare BadgerDB read of the same
// records: the same keys and values, in a database of the same settings.
func BenchmarkVerifyUncachedBadger(b *testing.B) {
	dir := b.TempDir()
	store, err := badger.Open(dir, badger.Options{})
	require.NoError(b, err)
	maker := newManager(b, store, fob.Config{UsageInterval: time.Hour})
	texts := map[int][]string{1: issue(b, maker, live, 1), 4096: issue(b, maker, live, 1000)}
	require.NoError(b, maker.Close())
	require.NoError(b, store.Close())

	b.Run("bare_read", func(b *testing.B) {
		db, err := badgerdb.Open(badgerdb.DefaultOptions(dir).WithLogger(nil).WithMemTableSize(16 << 20).WithNumMemtables(3).
			WithNumCompactors(2).WithValueLogFileSize(16 << 20).WithCompression(bopts.None).WithBlockCacheSize(0).WithMetricsEnabled(false))
		require.NoError(b, err)
		defer func() { require.NoError(b, db.Close()) }()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			text := texts[1][i]
			key := append([]byte{'c'}, text[len(text)-54:][:16]...)
			err := db.View(func(txn *badgerdb.Txn) error {
				item, err := txn.Get(key)
				if err != nil {
					return err
				}
				value, err := item.ValueCopy(nil)
				if len(value) < 100 {
					b.Fatal("not the record")
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			if i++; i == live {
				i = 0
			}
		}
	})
	for _, entries := range []int{1, 4096} { // see BenchmarkVerifyUncachedMemory
		b.Run(fmt.Sprintf("verify/%d", entries), func(b *testing.B) {
			store, err := badger.Open(dir, badger.Options{})
			require.NoError(b, err)
			defer func() { require.NoError(b, store.Close()) }()
			m, err := fob.New(store, fob.Config{Prefix: "acme_live", CacheEntries: entries, MaxStaleness: time.Hour, UsageInterval: time.Hour, SweepInterval: -1})
			require.NoError(b, err)
			defer func() { require.NoError(b, m.Close()) }()
			verify(b, m, texts[entries])
		})
	}
}

// BenchmarkIssueDurable issues keys on Badger, each on disk when it is returned.
func BenchmarkIssueDurable(b *testing.B) {
	durable(b, func(b *testing.B, m *fob.Manager) func(n int) error {
		return func(int) error {
			_, _, err := m.IssueKey(b.Context(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
			return err
		}
	})
}

// BenchmarkRevokeDurable revokes keys on Badger, each revocation on disk when it
// has returned.
func BenchmarkRevokeDurable(b *testing.B) {
	durable(b, func(b *testing.B, m *fob.Manager) func(n int) error {
		ids := make([]fob.ID, b.N)
		for i, text := range issue(b, m, b.N, 1) {
			var err error
			ids[i], err = fob.ParseID(text[len(text)-54:][:16])
			require.NoError(b, err)
		}
		return func(n int) error {
			receipt, err := m.Revoke(b.Context(), ids[n], "leaked")
			if receipt.Already {
				return errors.New("revoked already")
			}
			return err
		}
	})
}

// durable does a change b.N times on Badger, from several goroutines.
func durable(b *testing.B, prepare func(*testing.B, *fob.Manager) func(n int) error) {
	b.Helper()
	for _, writers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			store := openBadger(b, b.TempDir())
			do := prepare(b, newManager(b, store, fob.Config{}))
			before := store.Stats()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for n := next.Add(1) - 1; n < int64(b.N); n = next.Add(1) - 1 {
						if err := do(int(n)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			st := store.Stats()
			if st.Writes-before.Writes != uint64(b.N) {
				b.Fatalf("%d durable writes, want %d", st.Writes-before.Writes, b.N)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
			b.ReportMetric(float64(b.N)/float64(st.Commits-before.Commits), "keys/commit")
		})
	}
}
