package fob_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func check(k *provenKey) int {
	if porcupine.CheckOperations(keyModel, k.history) {
		return 0
	}
	return 1
}

// raced is what came of races between verifications and changes of a key.
type raced struct {
	races      uint64 // verifications that were under way while the key was changed
	overtaken  uint64 // reads of a record that was changed before it was delivered
	violations uint64 // answers that were older than a change which had returned
}

// prompt marks the context of calls that an overtaking store does not hold up.
type prompt struct{}

// overtaking is a store whose answers come late: after the record was read, and
// before it is handed out, others may change it.
type overtaking struct {
	backend.Store
	changes   sync.Map // backend.ID to *atomic.Uint64, raised before and after each change
	overtaken atomic.Uint64
}

func (s *overtaking) Unwrap() backend.Store { return s.Store }

func (s *overtaking) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	counter, ok := s.changes.Load(id)
	if !ok || ctx.Value(prompt{}) != nil {
		return rec, err
	}
	changes := counter.(*atomic.Uint64)
	before := changes.Load()
	for range rand.IntN(4) {
		runtime.Gosched()
	}
	if changes.Load() != before {
		s.overtaken.Add(1)
	}
	return rec, err
}

// races lets verifications and changes of a few keys race until there were so many.
func races(t *testing.T, seed, least uint64, breakIt func(*fob.Manager)) raced {
	t.Helper()
	store := &overtaking{Store: memory.New()}
	defer store.Close()
	m, err := fob.New(store, fob.Config{Prefix: "acme_live", MaxStaleness: time.Hour, SweepInterval: -1})
	require.NoError(t, err)
	defer m.Close()
	if breakIt != nil {
		breakIt(m)
	}
	type racedKey struct {
		text    string
		id      fob.ID
		changes atomic.Uint64 // odd while a change is under way
	}
	keys := make([]*racedKey, 4)
	for i := range keys {
		secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")})
		require.NoError(t, err)
		keys[i] = &racedKey{text: secret.Reveal(), id: key.ID()}
		store.changes.Store(backend.ID(key.ID()), &keys[i].changes)
	}
	var out raced
	var happened, wrong atomic.Uint64
	done := make(chan struct{})
	stopped := func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	ctx := context.Background()
	changing := context.WithValue(ctx, prompt{}, true)
	var verifiers, changers sync.WaitGroup
	for w := range 2 * len(keys) {
		verifiers.Go(func() {
			for k := keys[w%len(keys)]; !stopped(); runtime.Gosched() {
				before := k.changes.Load()
				_, err := m.Verify(ctx, k.text)
				if after := k.changes.Load(); after != before {
					happened.Add(1)
					continue
				}
				if before%2 == 1 {
					continue // either answer is right
				}
				// No change was under way: the state is known. 0, 4, 8 …: enabled.
				if enabled := before%4 == 0; enabled != (err == nil) || !enabled && !errors.Is(err, fob.ErrDisabled) {
					wrong.Add(1)
				}
			}
		})
	}
	for i, k := range keys {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		changers.Go(func() {
			for happened.Load() < least {
				for _, change := range []func(context.Context, fob.ID) error{
					func(ctx context.Context, id fob.ID) error { return m.Disable(ctx, id, "") },
					func(ctx context.Context, id fob.ID) error { return m.Enable(ctx, id) },
				} {
					k.changes.Add(1)
					if err := change(changing, k.id); err != nil {
						t.Error(err)
						return
					}
					k.changes.Add(1)
					if r.IntN(2) == 0 {
						continue // on to the next, while others are still reading what this one changed
					}
					_, err := m.Verify(ctx, k.text) // begins after the change has returned
					if disabled := k.changes.Load()%4 == 2; disabled != errors.Is(err, fob.ErrDisabled) || !disabled && err != nil {
						wrong.Add(1)
					}
				}
				if breakIt != nil && wrong.Load() > 0 {
					return
				}
			}
		})
	}
	changers.Wait()
	close(done)
	verifiers.Wait()
	if breakIt != nil {
		return raced{violations: wrong.Load()}
	}
	// And for good: of all that is still under way nothing may revive it.
	for _, k := range keys {
		_, err := m.Revoke(ctx, k.id, "")
		require.NoError(t, err)
		for range 1000 {
			if _, err := m.Verify(ctx, k.text); !errors.Is(err, fob.ErrRevoked) {
				wrong.Add(1)
			}
		}
	}
	out.races, out.overtaken, out.violations = happened.Load(), store.overtaken.Load(), wrong.Load()
	return out
}

// A hundred thousand times (FOB_RACES: in CI 200,000 under the race detector, by make proof ten million) a
// verification is under way while its key is disabled or enabled,
// and none that begins after the change has returned tells the old state.
func TestVerifyRacesRevoke(t *testing.T) {
	least := uint64(100_000)
	if n, err := strconv.ParseUint(os.Getenv("FOB_RACES"), 10, 64); err == nil {
		least = n
	} else if testing.Short() {
		least = 20_000
	}
	got := races(t, proofSeed(), least, nil)
	t.Logf("%d races, %d records overtaken by a change", got.races, got.overtaken)
	require.Zero(t, got.violations)
	require.GreaterOrEqual(t, got.races, least)
	require.Greater(t, got.overtaken, least/10_000, "reads were overtaken")
}
