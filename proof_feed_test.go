package fob_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/stretchr/testify/require"
)

// feedStore is a store with a feed that behaves in a way of its own.
type feedStore struct {
	backend.Store
	behave feedBehaviour
}

type feedBehaviour func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error

// failingOver is a store whose feed says that history was lost, once each time that
// failover is set.
func failingOver(store backend.Store) (feed *feedStore, failover *atomic.Bool) {
	failover = new(atomic.Bool)
	return &feedStore{store, func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			b.Reset = b.Reset || failover.Swap(false)
			return fn(b)
		})
	}}, failover
}

func (s *feedStore) Unwrap() backend.Store { return s.Store }

func (s *feedStore) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	inner, _ := backend.As[backend.Watcher](s.Store)
	return s.behave(ctx, from, inner, fn)
}

// feeds are ways to behave that the contract allows: what was not delivered is not
// proven.
var feeds = map[string]feedBehaviour{
	"plain": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		return inner.Watch(ctx, from, fn)
	},
	"stalls": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		n := 0
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			if n++; n%4 == 0 {
				time.Sleep(150 * time.Millisecond)
			}
			return fn(b)
		})
	},
	"repeats": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		var last backend.Batch
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			again := last
			again.Changes = append(slices.Clone(last.Changes), b.Changes...)
			again.Token, again.AsOf, again.Reset = b.Token, b.AsOf, b.Reset
			last = b
			return fn(again)
		})
	},
	"reorders": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			slices.Reverse(b.Changes)
			for i := range b.Changes { // one at a time, and proven with the last
				one := b
				one.Changes = b.Changes[i : i+1]
				one.AsOf, one.Token = time.Time{}, nil
				if err := fn(one); err != nil {
					return err
				}
			}
			b.Changes = nil
			return fn(b)
		})
	},
	"breaks off": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		n := 0
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			if n++; n%3 == 0 {
				return fmt.Errorf("the connection broke: %w", backend.ErrUnavailable)
			}
			return fn(b)
		})
	},
	"loses its history": func(ctx context.Context, _ backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		n := 0
		return inner.Watch(ctx, nil, func(b backend.Batch) error {
			if n++; n%5 == 0 {
				time.Sleep(80 * time.Millisecond)
				return backend.ErrUnavailable
			}
			b.Reset = b.Reset || n == 1
			return fn(b)
		})
	},
	"is cut off": func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
		n := 0
		return inner.Watch(ctx, from, func(b backend.Batch) error {
			if n++; n > 3 {
				<-ctx.Done()
				return ctx.Err()
			}
			return fn(b)
		})
	},
}

// A check that cannot fail proves nothing: the same harness finds what is broken.
func TestTheProofBites(t *testing.T) {
	bites := func(t *testing.T, try func(seed uint64) int) {
		t.Helper()
		seed := proofSeed()
		for round := range uint64(50) { // ends with the first; the first round finds it, as a rule
			if try(seed+round) > 0 {
				return
			}
		}
		t.Fatal("50 rounds found nothing wrong with a broken cache")
	}
	t.Run("no version floor", func(t *testing.T) {
		bites(t, func(seed uint64) int { return int(races(t, seed, 20_000, fob.BreakTickets).violations) })
	})
	t.Run("what is read is not compared with what is remembered", func(t *testing.T) {
		bites(t, func(seed uint64) int {
			n, _ := toldRound(t, lagging(proofStores(t)["memory"](t), seed), seed, fob.BreakNewest)
			return n
		})
	})
	t.Run("no feed", func(t *testing.T) {
		// It says that it has told everything, and tells nothing.
		deaf := func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			return inner.Watch(ctx, from, func(b backend.Batch) error {
				b.Changes = nil
				return fn(b)
			})
		}
		bites(t, func(seed uint64) int {
			n, _ := staleRound(t, proofStores(t)["memory"](t), deaf, seed, 60*time.Millisecond)
			return n
		})
	})
	t.Run("a feed that began after the entry is believed for it", func(t *testing.T) {
		// What is missed while it is away is not told, and nobody is told to forget.
		forgetful := func(ctx context.Context, _ backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
			n := 0
			return inner.Watch(ctx, nil, func(b backend.Batch) error {
				if n++; n%8 == 0 {
					return backend.ErrUnavailable
				}
				b.Reset, b.Token = false, backend.Token("somewhere")
				return fn(b)
			})
		}
		bites(t, func(seed uint64) int {
			n, _ := staleRound(t, proofStores(t)["memory"](t), forgetful, seed, 60*time.Millisecond)
			return n
		})
	})
	t.Run("answers from nowhere", func(t *testing.T) {
		// The model itself: a history that nothing explains is called so.
		p := &proof{managers: []*fob.Manager{newManager(t, nil, fob.Config{})}}
		n, _ := p.violations(t, 1, 50, 0)
		require.Zero(t, n)
		k := p.all[0]
		wrong := k.history[len(k.history)-1]
		wrong.Input, wrong.Output = action{verb: "verify"}, outcome{what: "accepted", scope: "scope:none"}
		wrong.Call, wrong.Return = wrong.Return+1, wrong.Return+2
		k.history = append(k.history, wrong)
		require.NotZero(t, check(k))
	})
}
