package rotation_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/lifecycle"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/rotation"
	"github.com/stretchr/testify/require"
)

// before calls a function in front of each write, which fails with its error.
type before struct {
	backend.Store
	put func(n int, rec backend.Record) error // n counts from 1
	n   int
}

func (s *before) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if s.n++; s.put != nil {
		if err := s.put(s.n, rec); err != nil {
			return 0, err
		}
	}
	return s.Store.Put(ctx, rec, cond)
}

func (s *before) Unwrap() backend.Store { return s.Store }

// process is one process on a store.
type process struct {
	*rotation.Rotator
	t     *testing.T
	store *before
	now   time.Time
	epoch uint64
}

func newProcess(t *testing.T, store backend.Store) *process {
	p := &process{t: t, store: &before{Store: store}, now: time.UnixMilli(1_700_000_000_000)}
	keys := &keystate.Store{
		Store:  recordstore.Store{Store: p.store, Forget: func(...backend.ID) {}},
		Closed: func() bool { return false },
	}
	p.Rotator = &rotation.Rotator{
		Keys: keys, Clock: new(clock.Clock), Life: new(lifecycle.Life),
		Stamp: func(_ context.Context, k *keystate.State) (uint64, uint64, error) {
			if k.Epoch < p.epoch {
				return p.epoch, 0, errs.ErrRevoked
			}
			return p.epoch, 0, nil
		},
		Prefix:      func(old *keystate.State) (string, error) { return old.Prefix, nil },
		StoreDigest: func(k *keystate.State, text string) { k.Digest = sha256.Sum256([]byte(text)) },
	}
	p.Clock.Start(func() time.Time { return p.now }, 1000*time.Hour)
	p.Life.Start()
	t.Cleanup(func() { p.Life.Close() })
	return p
}

// issue writes a key.
func (p *process) issue() *keystate.State {
	owner := record.Owner(1, "", "ann")
	k := &keystate.State{
		ID: keytext.NewID(p.now), Owner: owner, SubjectRef: record.SubjectID(owner), Prefix: "acme", Name: "laptop",
		Scopes: "read write", IssuedAt: p.now.UnixMilli(), Status: keystate.Active,
		Lifetime: 5000, ExpiresAt: p.now.UnixMilli() + 5000, Digest: sha256.Sum256([]byte("old")),
	}
	_, err := p.Keys.Create(p.t.Context(), k.Record(0))
	require.NoError(p.t, err)
	return p.read(k.ID)
}

func (p *process) read(id record.ID) *keystate.State {
	k, err := p.Keys.Read(p.t.Context(), id)
	require.NoError(p.t, err)
	return k
}

// works demands that the text is that of a key which is accepted.
func (p *process) works(id record.ID, text string) {
	k := p.read(id)
	require.NoError(p.t, k.Refusal(p.now.UnixMilli()))
	require.Equal(p.t, digest.Of([]byte(text)), k.Digest)
}

func TestAKeyGivesWayToItsSuccessor(t *testing.T) {
	p := newProcess(t, memory.New())
	key := p.issue()
	p.now = p.now.Add(time.Second)
	text, old, next, err := p.Rotate(t.Context(), key.ID, rotation.Terms{Overlap: time.Second})
	require.NoError(t, err)
	require.Equal(t, key, old, "as it was before")
	p.works(next.ID, text)
	require.Equal(t, next, p.read(next.ID))
	require.Equal(t, []any{key.Owner, key.Name, key.Scopes, key.ID}, []any{next.Owner, next.Name, next.Scopes, next.Predecessor})
	require.Equal(t, p.now.UnixMilli()+5000, next.ExpiresAt, "it lives as long as the old one was to")

	ended := p.read(key.ID)
	require.Equal(t, next.ID, ended.Successor)
	require.NoError(t, ended.Refusal(p.now.UnixMilli()+999))
	require.ErrorIs(t, ended.Refusal(p.now.UnixMilli()+1000), errs.ErrRetired)
	_, _, _, err = p.Rotate(t.Context(), key.ID, rotation.Terms{})
	require.ErrorIs(t, err, errs.ErrAlready)

	_, _, last, err := p.Rotate(t.Context(), next.ID, rotation.Terms{TTL: time.Minute})
	require.NoError(t, err)
	require.Equal(t, p.now.UnixMilli()+60_000, last.ExpiresAt)
	require.ErrorIs(t, p.read(next.ID).Refusal(0), errs.ErrRetired, "without an overlap no clock revives it")
}

func TestWhatIsRefusedIsNotRotated(t *testing.T) {
	for want, change := range map[error]func(*process, *keystate.State){
		errs.ErrRevoked:  func(p *process, _ *keystate.State) { p.epoch = 1 },
		errs.ErrExpired:  func(p *process, k *keystate.State) { p.now = time.UnixMilli(k.ExpiresAt) },
		errs.ErrNotFound: func(_ *process, k *keystate.State) { k.ID = record.ID{1} },
	} {
		p := newProcess(t, memory.New())
		key := p.issue()
		change(p, key)
		wrote := p.store.n
		_, _, _, err := p.Rotate(t.Context(), key.ID, rotation.Terms{})
		require.ErrorIs(t, err, want)
		require.Equal(t, wrote, p.store.n)
	}
}

func TestAnAttemptThatWasCutOffIsTakenOver(t *testing.T) {
	cut := errors.New("cut off")
	for step := 1; step <= 3; step++ {
		t.Run(fmt.Sprintf("at step %d", step), func(t *testing.T) {
			p := newProcess(t, memory.New())
			key := p.issue()
			var ids []record.ID // of the successors that were written, or were to be
			p.store.n, p.store.put = 0, func(n int, rec backend.Record) error {
				if rec.ID != key.ID {
					ids = append(ids, rec.ID)
				}
				if n == step {
					return cut
				}
				return nil
			}
			_, _, _, err := p.Rotate(t.Context(), key.ID, rotation.Terms{})
			require.ErrorIs(t, err, cut)
			require.NoError(t, p.read(key.ID).Refusal(p.now.UnixMilli()), "the old key stays until the last step")

			text, _, next, err := p.Rotate(t.Context(), key.ID, rotation.Terms{})
			require.NoError(t, err)
			p.works(next.ID, text)
			for _, id := range ids {
				require.Equal(t, next.ID, id, "there is one successor")
			}
			require.Equal(t, next.ID, p.read(key.ID).Successor)
		})
	}
}

func TestOfTwoAttemptsOneComesThrough(t *testing.T) {
	for step := 1; step <= 3; step++ {
		t.Run(fmt.Sprintf("before step %d", step), func(t *testing.T) {
			store := memory.New()
			first, second := newProcess(t, store), newProcess(t, store)
			key := first.issue()
			var text string
			var next *keystate.State
			first.store.n, first.store.put = 0, func(n int, _ backend.Record) (err error) {
				if n == step {
					text, _, next, err = second.Rotate(t.Context(), key.ID, rotation.Terms{})
				}
				return err
			}
			_, _, _, err := first.Rotate(t.Context(), key.ID, rotation.Terms{})
			require.ErrorIs(t, err, errs.ErrAlready)
			first.works(next.ID, text)
		})
	}
}

func TestTheSuccessorOfAKeyThatChangedIsRevoked(t *testing.T) {
	p := newProcess(t, memory.New())
	key := p.issue()
	var left record.ID
	p.store.n, p.store.put = 0, func(n int, rec backend.Record) error {
		switch n {
		case 2:
			left = rec.ID
		case 3:
			_, err := p.Keys.Edit(t.Context(), key.ID, func(k *keystate.State, _ bool) (bool, error) {
				k.Name = "desktop"
				return true, nil
			})
			return err
		}
		return nil
	}
	_, _, _, err := p.Rotate(t.Context(), key.ID, rotation.Terms{})
	require.ErrorIs(t, err, errs.ErrConflict)
	require.NotErrorIs(t, err, errs.ErrAlready)
	require.ErrorIs(t, p.read(left).Refusal(p.now.UnixMilli()), errs.ErrRevoked)
	require.NoError(t, p.read(key.ID).Refusal(p.now.UnixMilli()))

	text, _, next, err := p.Rotate(t.Context(), key.ID, rotation.Terms{})
	require.NoError(t, err)
	p.works(next.ID, text)
	require.NotEqual(t, left, next.ID, "what was revoked is not brought back")
}
