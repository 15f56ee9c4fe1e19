package bench_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// BenchmarkGrowth measures what may grow with the number of keys, subjects, revocations or
// changes, each for several numbers. docs/scaling.md shows the slopes. ns/op is the time of
// what the benchmark is named for.
//
//	go test -run '^$' -bench Growth -benchtime 0.3s ./bench
func BenchmarkGrowth(b *testing.B) {
	for _, of := range []struct {
		name    string
		sizes   []int
		measure func(b *testing.B, n int)
	}{
		{"hit/keys", []int{1000, 10_000, 100_000, 1_000_000}, growHit},
		{"changes/cached", []int{1000, 10_000, 100_000}, growChanges},
		{"revocations/cached", []int{1000, 10_000, 100_000}, growRevocations},
		{"usage_held/keys", []int{1000, 10_000, 100_000}, growUsageHeld},
		{"usage_read/unwritten", []int{1000, 10_000, 100_000}, growUsageRead},
		{"sweep/rotations", []int{10, 100, 1000}, growSweep},
		{"list/limit", []int{1, 10, 100, 1000}, growList},
		{"page/keys", []int{1000, 10_000, 100_000}, growPage},
		{"export/keys", []int{1000, 10_000, 100_000}, growExport},
		{"revoke/before", []int{0, 100, 1000, 10_000}, growRevoke},
		{"subject/keys", []int{1, 100, 10_000}, growSubject},
		{"purge/keys", []int{1000, 10_000, 100_000}, growPurge},
	} {
		for _, n := range of.sizes {
			b.Run(fmt.Sprintf("%s=%d", of.name, n), func(b *testing.B) { of.measure(b, n) })
		}
	}
}

// verifyAll verifies every text once, and returns how many of them were answered from
// memory.
func verifyAll(b *testing.B, m *fob.Manager, texts []string) (hits int) {
	b.Helper()
	before := m.CacheStats()
	for _, text := range texts {
		if _, err := m.Verify(b.Context(), text); err != nil {
			b.Fatal("not accepted: ", err)
		}
	}
	after := m.CacheStats()
	return int(after.Keys.Hits + after.Tokens.Hits - before.Keys.Hits - before.Tokens.Hits)
}

// patient is a configuration under which nothing is read again because it is old.
func patient(entries int) fob.Config {
	return fob.Config{CacheEntries: entries, CacheBytes: int64(entries) << 12, MaxStaleness: time.Hour, UsageInterval: time.Hour}
}

// growHit verifies keys from memory in random order, by turns with the floor: a hash of the
// same bytes, and a lookup in a map of as many.
func growHit(b *testing.B, n int) {
	const turn = 500
	store := memory.New()
	texts := issue(b, newManager(b, store, fob.Config{}), n, 1000)
	m := newManager(b, store, patient(n+n/4+1000))
	before := heap()
	verifyAll(b, m, texts)
	held := float64(heap()-before) / float64(n)
	require.Equal(b, n, verifyAll(b, m, texts), "all from memory")
	byDigest := make(map[[sha256.Size]byte]*int, n)
	for _, text := range texts {
		byDigest[blockSum(text)] = new(int)
	}
	order := accesses[0].order(n)
	ctx, at := b.Context(), 0
	var took [2][]time.Duration // by a turn of ours, and of the floor
	for turns := 0; b.Loop(); turns++ {
		if at+turn > len(order) {
			at = 0
		}
		some := order[at : at+turn]
		at += turn
		for half := range 2 {
			which := (turns + half) % 2 // who comes second finds the texts near
			began := time.Now()
			for _, i := range some {
				if which == 1 {
					if byDigest[blockSum(texts[i])] == nil {
						b.Fatal("not in the map")
					}
				} else if _, err := m.Verify(ctx, texts[i]); err != nil {
					b.Fatal(err)
				}
			}
			took[which] = append(took[which], time.Since(began))
		}
	}
	ours, floor := medianOf(took[0]), medianOf(took[1])
	b.ReportMetric(float64(ours.Nanoseconds())/turn, "ns/hit")
	b.ReportMetric(float64(ours)/float64(floor), "×-floor")
	b.ReportMetric(held, "B/key")
}

func medianOf(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// told waits until one Manager knows what another one did.
func told(b *testing.B, m *fob.Manager, by time.Time) {
	b.Helper()
	await.Until(b, "the feed", func() bool { return m.CacheStats().FeedAge < time.Since(by) })
}

// growChanges is a process with n keys in memory that hears of keys which others issue.
// None of these changes one of its own keys.
func growChanges(b *testing.B, n int) {
	const changes = 10_000
	store := memory.New()
	elsewhere := newManager(b, store, fob.Config{})
	texts := issue(b, elsewhere, n, 1000)
	m := newManager(b, store, patient(2*n))
	verifyAll(b, m, texts)
	require.Equal(b, n, verifyAll(b, m, texts))
	again := 0
	for b.Loop() {
		issue(b, elsewhere, changes, 1000)
		told(b, m, time.Now())
		b.StopTimer()
		again += n - verifyAll(b, m, texts)
		b.StartTimer()
	}
	b.ReportMetric(100*float64(again)/float64(b.N)/float64(n), "%-read-again")
}

// growRevocations is the same with n tokens in memory and revocations of other tokens.
func growRevocations(b *testing.B, n int) {
	const revoked = 10_000
	store := memory.New()
	cfg := patient(2 * n)
	cfg.Tokens = &fob.TokenConfig{Issuer: "acme", Audiences: []string{"api"}, Protocol: fob.V4Local, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour}
	elsewhere, m := newManager(b, store, cfg), newManager(b, store, cfg)
	texts := issueTokens(b, elsewhere, n)
	verifyAll(b, m, texts)
	require.Equal(b, n, verifyAll(b, m, texts))
	again := 0
	for b.Loop() {
		b.StopTimer()
		ids := make([]fob.ID, revoked)
		for i := range ids {
			issued, err := elsewhere.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User("bob")})
			require.NoError(b, err)
			ids[i] = issued.Token.ID()
		}
		b.StartTimer()
		for _, id := range ids {
			if _, err := elsewhere.Revoke(b.Context(), id, ""); err != nil {
				b.Fatal(err)
			}
		}
		told(b, m, time.Now())
		b.StopTimer()
		again += n - verifyAll(b, m, texts)
		b.StartTimer()
	}
	b.ReportMetric(100*float64(again)/float64(b.N)/float64(n), "%-read-again")
}

// growUsageHeld is what the uses of n keys take of memory until they are written, most of
// which are no longer in the cache, and how many calls write them.
func growUsageHeld(b *testing.B, n int) {
	store := backendtest.NewFault(memory.New())
	texts := issue(b, newManager(b, store, fob.Config{}), n, 1000)
	held, calls := 0.0, 0
	for b.Loop() {
		b.StopTimer()
		m := newManager(b, store, patient(1000))
		if held == 0 {
			before := heap()
			verifyAll(b, m, texts)
			held = float64(heap()-before) / float64(n)
		} else {
			verifyAll(b, m, texts)
		}
		calls -= store.Calls(backendtest.OpAddUsage)
		b.StartTimer()
		require.NoError(b, m.Close())
		calls += store.Calls(backendtest.OpAddUsage)
	}
	recorder, ok := backend.As[backend.UsageRecorder](store)
	require.True(b, ok)
	id, err := fob.ParseID(texts[n-1][len(texts[n-1])-54:][:16])
	require.NoError(b, err)
	used, err := recorder.Usage(b.Context(), []backend.ID{backend.ID(id)})
	require.NoError(b, err)
	require.EqualValues(b, b.N, used[0].N, "it was written")
	b.ReportMetric(held, "B/key")
	b.ReportMetric(float64(n)*float64(b.N)/float64(calls), "keys/call")
}

// growUsageRead reads the usage of one key while the uses of n others are not written.
func growUsageRead(b *testing.B, n int) {
	store := memory.New()
	texts := issue(b, newManager(b, store, fob.Config{}), n, 1000)
	m := newManager(b, store, patient(2*n))
	verifyAll(b, m, texts)
	require.Equal(b, n, verifyAll(b, m, texts)) // what is used again is counted in the cache
	id, err := fob.ParseID(texts[0][len(texts[0])-54:][:16])
	require.NoError(b, err)
	for b.Loop() {
		used, err := m.Usage(b.Context(), id)
		if err != nil || used.Count != 2 {
			b.Fatal(used.Count, err)
		}
	}
}

// callCounter counts the reads of a store. A call for many records is one.
type callCounter struct {
	*memory.Store
	calls atomic.Int64
}

func (s *callCounter) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.calls.Add(1)
	return s.Store.Get(ctx, id)
}

func (s *callCounter) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	s.calls.Add(1)
	return s.Store.GetMany(ctx, ids)
}

func (s *callCounter) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	s.calls.Add(1)
	return s.Store.List(ctx, q)
}

func (s *callCounter) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	s.calls.Add(1)
	return s.Store.Usage(ctx, ids)
}

// growSweep looks at n rotations whose old keys are still used.
func growSweep(b *testing.B, n int) {
	store := &callCounter{Store: memory.New()}
	m := newManager(b, store, fob.Config{})
	for range n {
		_, key, err := m.IssueKey(b.Context(), fob.KeySpec{Subject: fob.App("alice")})
		require.NoError(b, err)
		next, _, err := m.RotateKey(b.Context(), key.ID(), fob.Rotation{Overlap: 24 * time.Hour, QuietTime: time.Hour})
		require.NoError(b, err)
		_, err = m.Verify(b.Context(), next.Reveal())
		require.NoError(b, err)
	}
	store.calls.Store(0)
	for b.Loop() {
		done, err := m.Sweep(b.Context())
		require.NoError(b, err)
		require.Equal(b, fob.Swept{More: done.More}, done, "none is quiet")
	}
	b.ReportMetric(float64(store.calls.Load())/float64(b.N)/float64(n), "calls/rotation")
}

// growList asks for keys with a tag that none of 3,000 keys has.
func growList(b *testing.B, limit int) {
	store := backendtest.NewFault(memory.New())
	m := newManager(b, store, fob.Config{})
	issue(b, m, 3000, 10)
	before := store.Calls(backendtest.OpList)
	for b.Loop() {
		page, err := m.List(b.Context(), fob.Query{Tag: "nobody", Limit: limit})
		if err != nil || len(page.Items) != 0 || page.Next == "" {
			b.Fatal(page, err)
		}
	}
	b.ReportMetric(float64(store.Calls(backendtest.OpList)-before)/float64(b.N), "calls/op")
}

// growPage lists the keys of one of many subjects.
func growPage(b *testing.B, n int) {
	m := newManager(b, memory.New(), fob.Config{})
	issue(b, m, n, n/10)
	for b.Loop() {
		page, err := m.List(b.Context(), fob.Query{Subject: fob.App("app-42")})
		if err != nil || len(page.Items) != 10 || page.Next != "" {
			b.Fatal(len(page.Items), page.Next, err)
		}
	}
}

// growExport exports the one revocation that there is among n keys.
func growExport(b *testing.B, n int) {
	m := newManager(b, memory.New(), fob.Config{})
	issue(b, m, n, 1000)
	_, err := m.Revoke(b.Context(), fob.App("app-42"), "")
	require.NoError(b, err)
	for b.Loop() {
		if found, err := m.ExportRevocations(b.Context(), io.Discard, time.Time{}); err != nil || found != 1 {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/key")
}

// growRevoke revokes a subject in a process that has revoked n others lately.
func growRevoke(b *testing.B, n int) {
	m := newManager(b, memory.New(), fob.Config{})
	revoke := func(who string) {
		if _, err := m.Revoke(b.Context(), fob.App(who), ""); err != nil {
			b.Fatal(err)
		}
	}
	for i := range n {
		revoke(fmt.Sprintf("before-%d", i))
	}
	i := 0
	for b.Loop() {
		revoke(fmt.Sprintf("then-%d", i%max(n/10, 1))) // some of them again
		i++
	}
}

// growSubject revokes a subject that has n keys, all of them in memory. In the end none of
// them is accepted.
func growSubject(b *testing.B, n int) {
	m := newManager(b, memory.New(), patient(2*n+1000))
	texts := issue(b, m, n, 1)
	verifyAll(b, m, texts)
	for b.Loop() {
		if _, err := m.Revoke(b.Context(), fob.App("app-0"), ""); err != nil {
			b.Fatal(err)
		}
	}
	for _, text := range texts {
		_, err := m.Verify(b.Context(), text)
		require.ErrorIs(b, err, fob.ErrRevoked)
	}
}

// growPurge purges a thousand records beside n keys that stay.
func growPurge(b *testing.B, n int) {
	store := memory.New()
	m := newManager(b, store, fob.Config{})
	issue(b, m, n, 1000)
	for b.Loop() {
		b.StopTimer()
		for i := range backend.MaxLimit {
			rec := backend.Record{Kind: 200, Created: 1, PurgeAt: 1}
			copy(rec.ID[:], fmt.Sprintf("%016d", i))
			_, err := store.Put(b.Context(), rec, backend.IfAbsent())
			require.NoError(b, err)
		}
		b.StartTimer()
		done, err := m.Sweep(b.Context())
		if err != nil || done.Purged != backend.MaxLimit {
			b.Fatal(done, err)
		}
	}
}
