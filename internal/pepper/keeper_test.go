package pepper_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

const (
	keyText   = "a pepper of thirty-two bytes, 001"
	otherText = "a pepper of thirty-two bytes, 002"
)

var errDown = errors.New("the store is down")

// downStore fails every read while it is down, and counts the others.
type downStore struct {
	backend.Store
	down  bool
	reads atomic.Int32
}

func (s *downStore) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if s.down {
		return backend.Record{}, errDown
	}
	s.reads.Add(1)
	return s.Store.Get(ctx, id)
}

// process is one of several that share a store.
type process struct {
	*pepper.Keeper
	store *downStore
	now   time.Time

	mu       sync.Mutex // guards problems
	problems map[string]error
}

func newProcess(store backend.Store, foreign func(string) []byte, peppers ...string) *process {
	p := &process{store: &downStore{Store: store}, now: time.UnixMilli(1_700_000_000_000), problems: map[string]error{}}
	c := new(clock.Clock)
	c.Start(func() time.Time { return p.now }, time.Hour)
	p.Keeper = pepper.NewKeeper(pepper.KeeperConfig{
		Store: recordstore.Store{Store: p.store, Forget: func(...backend.ID) {}}, Clock: c, Imported: foreign,
		Problem: func(name string, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.problems[name] = err
		},
	})
	for i := 0; i < len(peppers); i += 2 {
		p.Add(peppers[i], []byte(peppers[i+1]))
	}
	return p
}

// Digests are under the first pepper, and can be made under each that is here.
func TestDigestsAreUnderTheFirstPepper(t *testing.T) {
	secret := []byte("secret")
	under := func(key string) digest.Digest {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(secret)
		return digest.Digest(mac.Sum(nil))
	}
	plain := digest.Digest(sha256.Sum256(secret))

	none := newProcess(memory.New(), nil)
	made, id := none.Digest(secret)
	require.Equal(t, plain, made)
	require.Empty(t, id)
	require.Empty(t, none.Active())

	two := newProcess(memory.New(), nil, "p2", otherText, "p1", keyText)
	made, id = two.Digest(secret)
	require.Equal(t, under(otherText), made)
	require.Equal(t, "p2", id)
	require.Equal(t, "p2", two.Active())
	for id, want := range map[string]digest.Digest{"": plain, "p1": under(keyText), "p2": under(otherText)} {
		made, err := two.Under(id, secret)
		require.NoError(t, err)
		require.Equal(t, want, made, id)
	}
	_, err := two.Under("p3", secret)
	require.ErrorIs(t, err, errs.ErrPepper)
	require.EqualError(t, err, `fob: pepper not configured: "p3"`)
}

// The first process decides which key a pepper has, and the others learn of it before
// they make anything or call a credential wrong.
func TestAPepperWithAnotherKeyIsFoundOut(t *testing.T) {
	store := memory.New()
	right, wrong := newProcess(store, nil, "p1", keyText), newProcess(store, nil, "p1", otherText)
	require.NoError(t, right.Vouch(t.Context()))
	require.NoError(t, right.Vouch(t.Context()))
	require.EqualValues(t, 2, right.store.reads.Load(), "before it wrote the check value, and what it wrote")

	const text = `fob: pepper not configured: "p1" has another key than the one that is in use under this ID`
	require.EqualError(t, wrong.Vouch(t.Context()), text)
	require.EqualError(t, wrong.Doubt(t.Context(), "p1"), text)
	require.EqualError(t, wrong.problems[`pepper "p1"`], text)
	require.ErrorIs(t, wrong.problems[`pepper "p1"`], errs.ErrPepper)
	require.Empty(t, wrong.Check(t.Context()), "what is wrong is a problem")

	require.NoError(t, right.Doubt(t.Context(), "p1"))
	require.NoError(t, right.Doubt(t.Context(), ""))
	same := newProcess(store, nil, "p0", otherText, "p1", keyText)
	require.Empty(t, same.Check(t.Context()))
	require.Equal(t, map[string]error{`pepper "p0"`: nil, `pepper "p1"`: nil}, same.problems)
	require.NoError(t, same.Doubt(t.Context(), "p1"))
}

// Of what is not known to be right, a credential that does not match is not called wrong,
// unless another one did match.
func TestAMatchProvesAPepper(t *testing.T) {
	right, wrong := digest.Of([]byte("right")), digest.Of([]byte("wrong"))
	match := func(p *process, id string, made digest.Digest) (bool, error) {
		return p.Matches(t.Context(), id, made, right)
	}
	p := newProcess(memory.New(), nil, "p1", keyText)
	matches, err := match(p, "", wrong)
	require.NoError(t, err)
	require.False(t, matches)

	const unknown = `fob: pepper not configured: nothing tells yet whether pepper "p1" is the one in use`
	_, err = match(p, "p1", wrong)
	require.EqualError(t, err, unknown)
	_, err = match(p, "p1", wrong)
	require.EqualError(t, err, unknown)
	require.EqualValues(t, 1, p.store.reads.Load(), "it is believed for a while that there is no check value")
	p.now = p.now.Add(10 * time.Second)
	_, err = match(p, "p1", wrong)
	require.EqualError(t, err, unknown)
	require.EqualValues(t, 2, p.store.reads.Load())

	p.now, p.store.down = p.now.Add(10*time.Second), true
	_, err = match(p, "p1", wrong)
	require.ErrorIs(t, err, errDown)
	require.Len(t, p.Check(t.Context()), 1)

	matches, err = match(p, "p1", right)
	require.NoError(t, err)
	require.True(t, matches)
	for _, down := range []bool{true, false} {
		p.store.down = down
		matches, err = match(p, "p1", wrong)
		require.NoError(t, err, "down: %v", down)
		require.False(t, matches)
	}
}

// The digest of another system is checked as a pepper is, but for what was imported
// before there were check values.
func TestAnImportedDigestThatIsAnotherOneIsFoundOut(t *testing.T) {
	by := func(name string) func(string) []byte {
		return func(presented string) []byte { return []byte(name + presented) }
	}
	store := memory.New()
	silent := newProcess(store, func(string) []byte { return nil })
	for _, p := range []*process{newProcess(store, nil), silent} {
		require.NoError(t, p.VouchImported(t.Context()))
		require.NoError(t, p.DoubtImported(t.Context()))
		require.Empty(t, p.Check(t.Context()))
		require.Zero(t, p.store.reads.Load(), "nothing can be said of it")
	}
	right, wrong := newProcess(store, by("right")), newProcess(store, by("wrong"))
	require.NoError(t, wrong.DoubtImported(t.Context()))
	require.NoError(t, right.VouchImported(t.Context()))
	require.NoError(t, right.DoubtImported(t.Context()))

	const text = "fob: pepper not configured: Config.Imported.Digest is another one than that of the keys imported by it"
	require.EqualError(t, wrong.VouchImported(t.Context()), text)
	require.EqualError(t, wrong.DoubtImported(t.Context()), text)
	require.Equal(t, []string{"foreign digest"}, names(wrong.problems))
}

func names(problems map[string]error) (all []string) {
	for name := range problems {
		all = append(all, name)
	}
	return all
}

// A check value that cannot be read says nothing of the secret.
func TestADamagedCheckValueIsNoWrongPepper(t *testing.T) {
	store := memory.New()
	p := newProcess(store, nil, "p1", keyText)
	require.NoError(t, p.Vouch(t.Context()))
	id := record.Named(record.Check, "pepper", "p1")
	rec, err := store.Get(t.Context(), id)
	require.NoError(t, err)
	rec.Body[len(rec.Body)-1] ^= 1
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)

	other := newProcess(store, nil, "p1", otherText)
	for _, err := range []error{other.Vouch(t.Context()), other.Doubt(t.Context(), "p1"), errors.Join(other.Check(t.Context())...)} {
		require.ErrorIs(t, err, errs.ErrCorrupt)
		require.NotErrorIs(t, err, errs.ErrPepper)
	}
	require.Empty(t, other.problems)
}

// Of many that begin at once with two keys under one ID, those with one of them may go on.
func TestOneKeyWinsOfManyAtOnce(t *testing.T) {
	store := memory.New()
	right, wrong := newProcess(store, nil, "p1", keyText), newProcess(store, nil, "p1", otherText)
	var all [2][8]error
	var done sync.WaitGroup
	for n, k := range []*pepper.Keeper{right.Keeper, wrong.Keeper} {
		for i := range all[n] {
			done.Go(func() { all[n][i] = k.Vouch(t.Context()) })
		}
	}
	done.Wait()
	winner := 0
	if all[0][0] != nil {
		winner = 1
	}
	for i := range all[winner] {
		require.NoError(t, all[winner][i])
		require.ErrorIs(t, all[1-winner][i], errs.ErrPepper)
	}
}

// A Keeper shows no pepper, also where fmt reads the fields of it and of what holds it.
func TestNoVerbPrintsAPepper(t *testing.T) {
	k := newProcess(memory.New(), nil, "p1", keyText).Keeper
	type holder struct{ k *pepper.Keeper }
	for _, v := range []any{k, holder{k}, &holder{k}, []holder{{k}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			out := fmt.Sprintf(verb, v)
			for _, form := range []string{keyText, hex.EncodeToString([]byte(keyText)), fmt.Sprint([]byte(keyText))[1:30]} {
				require.NotContains(t, out, form, verb)
			}
		}
	}
}
