package fob_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// standby is a store behind which another server takes over, which has what was copied to it
// and counts its versions by itself.
type standby struct {
	mu      sync.Mutex // guards all below
	serves  *memory.Store
	watches context.Context
	leave   context.CancelFunc
}

func newStandby(t *testing.T) *standby {
	t.Helper()
	s := &standby{}
	s.takeOver(t, snapshot{})
	return s
}

// takeOver makes a new server serve, which has the records of a snapshot.
func (s *standby) takeOver(t *testing.T, has snapshot) {
	t.Helper()
	serves := memory.New()
	var recs []backend.Record
	for _, rec := range has {
		recs = append(recs, rec)
	}
	slices.SortFunc(recs, func(a, b backend.Record) int { return cmp.Compare(a.Version, b.Version) })
	for _, rec := range recs {
		_, err := serves.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave != nil {
		s.leave()
		require.NoError(t, s.serves.Close())
	}
	s.serves = serves
	s.watches, s.leave = context.WithCancel(context.Background())
}

func (s *standby) now() *memory.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serves
}

func (s *standby) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	return s.now().Get(ctx, id)
}

func (s *standby) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	return s.now().Put(ctx, rec, cond)
}

func (s *standby) Delete(ctx context.Context, id backend.ID, version uint64) error {
	return s.now().Delete(ctx, id, version)
}

func (s *standby) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	return s.now().List(ctx, q)
}

// Close ends what still serves.
func (s *standby) Close() error {
	s.leave()
	return s.now().Close()
}

func (s *standby) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	s.mu.Lock()
	serves, watches := s.serves, s.watches
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(watches, cancel)()
	if err := serves.Watch(ctx, from, fn); watches.Err() == nil {
		return err
	}
	return backend.ErrUnavailable
}

// What was disabled and enabled here before a server took over that had not heard of it is so
// again: of an account, a subject, a session, a token and all tokens. A key is disabled
// again, but not enabled again: its record does not tell whether somebody has disabled it
// for another reason since.
func TestWhatAFailoverForgotIsSwitchedAgain(t *testing.T) {
	for what, target := range map[string]func(h holding) fob.Target{
		"account": func(h holding) fob.Target { return h.subject.Account },
		"subject": func(h holding) fob.Target { return h.subject },
		"session": func(h holding) fob.Target { return h.session },
		"token":   func(h holding) fob.Target { return h.direct.Token.ID() },
		"tokens":  func(holding) fob.Target { return fob.AllTokens(time.Time{}) },
		"key":     func(h holding) fob.Target { return h.key.ID() },
	} {
		for _, last := range []fob.EventType{fob.EventDisabled, fob.EventEnabled} {
			t.Run(what+" "+last.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, seen := newStandby(t), &observed{}
					cfg := tokenConfig()
					cfg.Observer = seen
					defer func() { require.NoError(t, store.Close()) }()
					m := newManager(t, store, cfg)
					defer m.Close()
					h := hold(t, m, fob.App("ci").In("acme"))
					target := target(h)
					if last == fob.EventEnabled {
						require.NoError(t, m.Disable(t.Context(), target, "unpaid"))
						pass(11 * time.Minute) // every server knows that, and nobody repeats it
					}
					before := snapshot{}
					before.take(t, store)
					if last == fob.EventDisabled {
						require.NoError(t, m.Disable(t.Context(), target, "unpaid"))
					} else {
						require.NoError(t, m.Enable(t.Context(), target))
					}
					want := h.answers(m.Fresh())
					pass(time.Second)
					seen.take()
					store.takeOver(t, before)
					pass(5 * time.Second)
					require.True(t, m.Health().Following)
					var again []fob.Event
					for _, e := range seen.take() {
						if slices.Contains([]fob.EventType{fob.EventDisabled, fob.EventEnabled, fob.EventRevoked}, e.Type) {
							again = append(again, e)
						}
					}
					if what == "key" && last == fob.EventEnabled {
						require.Empty(t, again)
						want["key"], want["session"] = fob.ErrDisabled, fob.ErrDisabled
					} else {
						require.Len(t, again, 1)
						require.Equal(t, last, again[0].Type)
						require.NoError(t, again[0].Err)
					}
					other := newManager(t, store, tokenConfig())
					defer other.Close()
					for _, v := range []fob.Verifier{m, m.Fresh(), other} {
						for name, err := range h.answers(v) {
							require.Equal(t, fob.Reason(want[name]), fob.Reason(err), name)
						}
					}
				})
			})
		}
	}
}
