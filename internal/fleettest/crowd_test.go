package fleettest_test

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

// asked counts what a store is asked for by one process. A call for many records is one.
type asked struct {
	gets, lists, scans, puts, purges, usages, batches atomic.Int64
}

func (a *asked) calls() int64 {
	return a.gets.Load() + a.lists.Load() + a.scans.Load() + a.puts.Load() + a.purges.Load() + a.usages.Load()
}

// counted is the store of many processes as one of them has it.
type counted struct {
	*memory.Store
	*asked
}

func (s counted) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, id)
}

func (s counted) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	s.gets.Add(1)
	return s.Store.GetMany(ctx, ids)
}

func (s counted) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	s.lists.Add(1)
	return s.Store.List(ctx, q)
}

func (s counted) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	s.scans.Add(1)
	return s.Store.Scan(ctx, kind, fn)
}

func (s counted) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	s.puts.Add(1)
	return s.Store.Put(ctx, rec, cond)
}

func (s counted) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	s.purges.Add(1)
	return s.Store.Purge(ctx, before, limit)
}

func (s counted) AddUsage(ctx context.Context, batch []backend.Usage) error {
	s.usages.Add(1)
	return s.Store.AddUsage(ctx, batch)
}

func (s counted) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	return s.Store.Watch(ctx, from, func(b backend.Batch) error {
		s.batches.Add(1)
		return fn(b)
	})
}

// crowd is many processes on one store: each is a Manager in this process, with a store of
// its own that counts, because hundreds of processes would only measure the machine.
type crowd struct {
	all   []*fob.Manager
	asked []*asked // by each of them; nil where the store does not count
}

// onMemory starts n processes at once on one store in memory.
func onMemory(t testing.TB, n int, change ...func(i int, c *fob.Config)) (*crowd, *memory.Store) {
	t.Helper()
	store := memory.New()
	c := new(crowd)
	for i := range n {
		cfg := crowdConfig()
		for _, f := range change {
			f(i, &cfg)
		}
		a := new(asked)
		m, err := fob.New(counted{store, a}, cfg)
		require.NoError(t, err)
		c.all, c.asked = append(c.all, m), append(c.asked, a)
	}
	return c, store
}

func crowdConfig() fob.Config {
	return fob.Config{
		Prefix: "acme_live",
		Tokens: &fob.TokenConfig{Issuer: "https://issuer.test", Audiences: []string{"api"}, SealKey: []byte(strings.Repeat("s", 32))},
	}
}

// close ends all processes at once.
func (c *crowd) close(t testing.TB) {
	t.Helper()
	inParallel(64, len(c.all), func(i int) {
		if err := c.all[i].Close(); err != nil {
			t.Error(err)
		}
	})
}

// refused returns how many processes refuse a credential as revoked.
func (c *crowd) refused(t testing.TB, text string) (n int) {
	t.Helper()
	for _, m := range c.all {
		_, err := m.Verify(t.Context(), text)
		if err != nil {
			require.ErrorIs(t, err, fob.ErrRevoked)
			n++
		}
	}
	return n
}

// crowdSize is how many processes a test has: the bound does not depend on it.
func crowdSize() int {
	if os.Getenv("FOB_LONG") != "" {
		return 500
	}
	return 40
}

// TestACrowdThatIsIdleAsksForNextToNothing: two calls a minute of each process, which are
// its sweep, however many there are and whatever is in the store. What the feed costs while
// nothing changes is the business of each store.
func TestACrowdThatIsIdleAsksForNextToNothing(t *testing.T) {
	for _, n := range []int{1, crowdSize()} {
		synctest.Test(t, func(t *testing.T) {
			c, store := onMemory(t, n)
			defer store.Close()
			defer c.close(t)
			text, key, err := c.all[0].IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("alice")})
			require.NoError(t, err)
			_, err = c.all[0].Revoke(t.Context(), key.ID(), "")
			require.NoError(t, err)
			require.Equal(t, n, c.refused(t, text.Reveal()))
			time.Sleep(90 * time.Second) // between two sweeps
			before := make([]int64, n)
			for i, a := range c.asked {
				before[i] = a.calls()
			}
			const minutes = 2
			time.Sleep(minutes * time.Minute)
			for i, a := range c.asked {
				require.EqualValues(t, 2*minutes, a.calls()-before[i], "%d processes", n)
			}
		})
	}
}

// TestACrowdRefusesWhatOneOfThemRevokes as soon as the feed has told: no process waits for
// another one. A process that nobody shows what was revoked reads no oftener than twice a
// second, however much that is.
func TestACrowdRefusesWhatOneOfThemRevokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := crowdSize()
		c, store := onMemory(t, n)
		defer store.Close()
		defer c.close(t)
		s := &storm{here: c.all[0]}
		const each = 50
		var victims []victim
		for _, what := range []string{"keys", "tokens", "sessions", "subjects"} {
			for i := range each {
				victims = append(victims, s.victim(t, what, i))
			}
		}
		for _, v := range victims {
			require.Zero(t, c.refused(t, v.text))
		}
		synctest.Wait()
		before := make([]int64, n)
		for i, a := range c.asked {
			before[i] = a.gets.Load()
		}
		const pause = 10 * time.Millisecond
		for _, v := range victims {
			require.NoError(t, v.revoke(t.Context()))
			time.Sleep(pause)
		}
		seconds := (time.Duration(len(victims)) * pause).Seconds()
		for i, a := range c.asked[1:] {
			require.LessOrEqual(t, a.gets.Load()-before[i+1], int64(2*seconds+1))
		}
		began := time.Now()
		for _, v := range victims {
			require.Equal(t, n, c.refused(t, v.text))
		}
		require.Equal(t, began, time.Now(), "what was named was refused, whether it was read or not")
	})
}

// TestTheRecordOfACrowdDoesNotGrow with the number of processes that announce something in
// it: it holds the largest of each bound.
func TestTheRecordOfACrowdDoesNotGrow(t *testing.T) {
	size := make(map[int]int)
	for _, n := range []int{1, crowdSize()} {
		synctest.Test(t, func(t *testing.T) {
			patience := func(i int) time.Duration { return time.Hour + time.Duration(i)*time.Second }
			c, store := onMemory(t, n, func(i int, cfg *fob.Config) {
				cfg.StaleIfError, cfg.UsageInterval = patience(i), patience(i)
				cfg.Tokens.MaxTTL = 24 * time.Hour
			})
			defer store.Close()
			defer c.close(t)
			time.Sleep(10 * time.Minute) // for whoever lost a race to be written, and tries again
			have, err := c.all[0].FleetStaleness(t.Context())
			require.NoError(t, err)
			require.Equal(t, patience(n-1)+2*time.Second, have)
			all, records := 0, 0
			require.NoError(t, store.Scan(t.Context(), record.Fleet, func(recs []backend.Record) error {
				for _, rec := range recs {
					all += len(rec.Body)
				}
				records += len(recs)
				return nil
			}))
			require.Equal(t, 2, records)
			size[n] = all
			writes := int64(0)
			for _, a := range c.asked {
				writes += a.puts.Load()
			}
			t.Logf("%d processes: %d bytes, %d writes", n, all, writes)
		})
	}
	require.InDelta(t, size[1], size[crowdSize()], 4, "numbers may need another byte")
}
