package fob_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/stretchr/testify/require"
)

// told is what a verification said, and when.
type told struct {
	began, ended time.Duration
	manager      int
	outcome      outcome
}

// written is a state that a key was given: between began and ended of the call.
type written struct {
	began, ended time.Duration
	manager      int
	state        outcome // as a verification tells it
}

// staleRound lets three Managers on one store change and verify keys, and returns
// how often one told a state that was over for longer than staleness when the
// verification began (for its own changes: at all). Each key is changed by one
// goroutine, through the Managers in turn, so that the order of its states is known.
func staleRound(t *testing.T, store backend.Store, behaviour feedBehaviour, seed uint64, staleness time.Duration) (violations int, story string) {
	t.Helper()
	var managers []*fob.Manager
	for range 3 {
		managers = append(managers, newManager(t, &feedStore{Store: store, behave: behaviour}, fob.Config{MaxStaleness: staleness}))
	}
	began, ctx := time.Now(), context.Background()
	stop := make(chan struct{})
	var changers, verifiers sync.WaitGroup
	type key struct {
		text   string
		id     fob.ID
		states []written
		mu     sync.Mutex
		told   []told
	}
	var keys []*key
	for n := range 3 {
		secret, issued, err := managers[0].IssueKey(ctx, fob.KeySpec{Subject: fob.App(fmt.Sprintf("app-%d", n)), Scopes: fob.Scopes{"scope:0"}})
		require.NoError(t, err)
		k := &key{text: secret.Reveal(), id: issued.ID(), states: []written{{state: outcome{"accepted", "scope:0"}}}}
		keys = append(keys, k)
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		changers.Go(func() {
			for i := range 14 {
				time.Sleep(time.Duration(r.Int64N(int64(2 * staleness))))
				by, scope := r.IntN(len(managers)), fob.Scope(fmt.Sprintf("scope:%d", i+1))
				m, w := managers[by], written{manager: by, began: time.Since(began)}
				var err error
				switch last := k.states[len(k.states)-1].state; {
				case i == 13:
					_, err = m.Revoke(ctx, issued.Subject(), "")
					w.state = outcome{what: "revoked"}
				case last.what == "disabled":
					err = m.Enable(ctx, k.id)
					w.state = outcome{"accepted", k.states[len(k.states)-2].state.scope}
				case r.IntN(2) == 0:
					err = m.Disable(ctx, k.id, "")
					w.state = outcome{what: "disabled"}
				default:
					_, err = m.UpdateKey(ctx, k.id, fob.KeyUpdate{Scopes: &fob.Scopes{scope}})
					w.state = outcome{"accepted", scope}
				}
				if err != nil {
					t.Error(err)
				}
				w.ended = time.Since(began)
				k.states = append(k.states, w)
			}
			time.Sleep(2 * staleness)
		})
	}
	for v := range 4 {
		r := rand.New(rand.NewPCG(seed, uint64(100+v)))
		verifiers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(r.IntN(2000)) * time.Microsecond):
				}
				k, manager := keys[r.IntN(len(keys))], r.IntN(len(managers))
				one := told{began: time.Since(began), manager: manager}
				one.outcome = verified(managers[manager].Verify(ctx, k.text))
				one.ended = time.Since(began)
				k.mu.Lock()
				k.told = append(k.told, one)
				k.mu.Unlock()
			}
		})
	}
	changers.Wait()
	close(stop)
	verifiers.Wait()
	for n, k := range keys {
		seen := 0
		for _, one := range k.told {
			if one.outcome.what == "unsure" {
				continue // no information
			}
			seen++
			if !mayTell(k.states, one, staleness) {
				violations++
				story = fmt.Sprintf("seed %d, key %d, states %v: told %+v", seed, n, k.states, one)
			}
		}
		if seen < 100 {
			t.Errorf("seed %d: only %d answers", seed, seen)
		}
	}
	return violations, story
}

// mayTell reports whether one of the states that are told of held at an instant
// between staleness before the verification began, and its end: state i from the
// beginning of its change, at the earliest, until the end of the next, at the latest.
// A change that the same Manager has made is seen at once.
func mayTell(states []written, one told, staleness time.Duration) bool {
	for i, w := range states {
		over := time.Duration(1<<62 - 1)
		if i+1 < len(states) {
			over = states[i+1].ended
			if states[i+1].manager != one.manager {
				over += staleness
			}
		}
		if w.state == one.outcome && w.began <= one.ended && over >= one.began {
			return true
		}
	}
	return false
}

// In several processes a verification may tell what was so MaxStaleness before it
// began, and nothing older: whatever the feed does.
func TestBoundedStaleness(t *testing.T) {
	seed := proofSeed()
	for name, open := range proofStores(t) {
		for feed, behaviour := range feeds {
			t.Run(name+"/"+feed, func(t *testing.T) {
				t.Parallel() // they mostly wait
				for round := range proofRounds(1) {
					n, story := staleRound(t, open(t), behaviour, seed+uint64(round), 60*time.Millisecond)
					require.Zero(t, n, story)
				}
			})
		}
	}
}
