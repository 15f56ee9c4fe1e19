package keystate_test

import (
	"slices"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

// process is one of several that share a store.
type process struct {
	keystate.Store
	fault     *backendtest.Fault
	forgotten []backend.ID
	closed    bool
}

func newProcess(store backend.Store) *process {
	p := &process{fault: backendtest.NewFault(store)}
	p.Store = keystate.Store{
		Store:     recordstore.Store{Store: p.fault, Forget: func(ids ...backend.ID) { p.forgotten = append(p.forgotten, ids...) }},
		Retention: 100, Margin: 40, Closed: func() bool { return p.closed },
	}
	return p
}

// forgot reports whether what was made from a key was forgotten since the last call.
func (p *process) forgot(id record.ID) bool {
	did := slices.Contains(p.forgotten, id)
	p.forgotten = nil
	return did
}

// begin makes a key in a store of its own.
func begin(t *testing.T) (*process, *process, keystate.State) {
	store := memory.New()
	one, other := newProcess(store), newProcess(store)
	k := keystate.State{ID: record.ID{15: 1}, Owner: "1a", SubjectRef: record.SubjectID("1a"), IssuedAt: 1, Status: keystate.Active, Name: "old"}
	version, err := one.Create(t.Context(), one.RecordOf(&k))
	require.NoError(t, err)
	require.True(t, one.forgot(k.ID))
	k.Version = version
	return one, other, k
}

func rename(to string) func(*keystate.State, bool) (bool, error) {
	return func(k *keystate.State, _ bool) (bool, error) {
		changed := k.Name != to
		k.Name = to
		return changed, nil
	}
}

func (p *process) name(t *testing.T, id record.ID) string {
	k, err := p.Read(t.Context(), id)
	require.NoError(t, err)
	return k.Name
}

// Whatever a change tells of a key is no news to a verification after it.
func TestEveryEditForgetsWhatWasMadeFromTheKey(t *testing.T) {
	p, _, k := begin(t)
	edited, err := p.Edit(t.Context(), k.ID, rename("new"))
	require.NoError(t, err)
	require.Greater(t, edited.Version, k.Version)
	require.True(t, p.forgot(k.ID))
	read, err := p.Read(t.Context(), k.ID)
	require.NoError(t, err)
	require.Equal(t, edited, read)
	require.False(t, p.forgot(k.ID), "a read changes nothing")

	puts := p.fault.Calls(backendtest.OpPut)
	same, err := p.Edit(t.Context(), k.ID, rename("new"))
	require.NoError(t, err)
	require.Equal(t, edited, same)
	require.Equal(t, puts, p.fault.Calls(backendtest.OpPut), "nothing was to be written")
	require.True(t, p.forgot(k.ID), "somebody else may have made it so")

	_, err = p.Edit(t.Context(), k.ID, func(*keystate.State, bool) (bool, error) { return true, errs.ErrRevoked })
	require.ErrorIs(t, err, errs.ErrRevoked)
	require.True(t, p.forgot(k.ID))
	require.Equal(t, "new", p.name(t, k.ID))
}

// A change that came between is kept: the edit is decided anew.
func TestAnEditIsMadeOfWhatIsThere(t *testing.T) {
	one, other, k := begin(t)
	tries := 0
	_, err := one.Edit(t.Context(), k.ID, func(k *keystate.State, unsure bool) (bool, error) {
		if tries++; tries == 1 {
			_, err := other.Edit(t.Context(), k.ID, func(k *keystate.State, _ bool) (bool, error) {
				k.Tags = []string{"theirs"}
				return true, nil
			})
			require.NoError(t, err)
		}
		require.False(t, unsure, "a race that was lost has changed nothing")
		return rename("mine")(k, unsure)
	})
	require.NoError(t, err)
	require.Equal(t, 2, tries)
	read, err := other.Read(t.Context(), k.ID)
	require.NoError(t, err)
	require.Equal(t, "mine", read.Name)
	require.Equal(t, []string{"theirs"}, read.Tags)
}

// What was perhaps written is written again until the store confirms it.
func TestAnEditOfUnknownOutcomeIsMadeAgain(t *testing.T) {
	p, _, k := begin(t)
	p.fault.InjectOnce(backendtest.OpPut, backendtest.LostAck())
	puts := p.fault.Calls(backendtest.OpPut)
	var unsures []bool
	edited, err := p.Edit(t.Context(), k.ID, func(k *keystate.State, unsure bool) (bool, error) {
		unsures = append(unsures, unsure)
		require.Equal(t, unsure, p.forgot(k.ID), "a verification may see it already")
		return rename("new")(k, unsure)
	})
	require.NoError(t, err)
	require.Equal(t, []bool{false, true}, unsures)
	require.Equal(t, 2, p.fault.Calls(backendtest.OpPut)-puts, "although there was nothing left to change")
	require.Equal(t, k.Version+2, edited.Version)
	require.True(t, p.forgot(k.ID))

	p.fault.InjectOnce(backendtest.OpPut, backendtest.LostAck())
	_, err = p.Edit(t.Context(), k.ID, func(k *keystate.State, unsure bool) (bool, error) {
		if unsure {
			return false, errs.ErrConflict
		}
		return rename("newer")(k, unsure)
	})
	require.ErrorIs(t, err, errs.ErrIndeterminate, "the first try may have been applied")
	require.True(t, p.forgot(k.ID))
}

func TestNothingIsEditedThatCannotBe(t *testing.T) {
	p, _, k := begin(t)
	unasked := func(*keystate.State, bool) (bool, error) {
		t.Error("there is nothing to decide")
		return false, nil
	}
	_, err := p.Edit(t.Context(), record.ID{15: 2}, unasked)
	require.ErrorIs(t, err, errs.ErrNotFound)
	p.fault.InjectOnce(backendtest.OpPut, backendtest.Unavailable())
	_, err = p.Edit(t.Context(), k.ID, rename("new"))
	require.ErrorContains(t, err, "write: ")
	p.closed = true
	_, err = p.Edit(t.Context(), k.ID, unasked)
	require.ErrorIs(t, err, errs.ErrClosed)
	require.Equal(t, "old", p.name(t, k.ID), "and it can still be read")
}

// A record is kept for as long as anybody could need it.
func TestWhenAKeyMayBeForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		state           keystate.State
		long, short, no int64 // with a retention that is longer than the margin, shorter, none
	}{
		"one that does not end":         {keystate.State{Status: keystate.Active}, 0, 0, 0},
		"whatever leads to it":          {keystate.State{Status: keystate.Active, KeptUntil: 5000}, 0, 0, 0},
		"by the clock":                  {keystate.State{Status: keystate.Active, ExpiresAt: 1000}, 1100, 1040, 1040},
		"by the end of its overlap":     {keystate.State{Status: keystate.Active, ExpiresAt: 1000, RetireAt: 500}, 600, 540, 540},
		"disabled, by the clock":        {keystate.State{Status: keystate.Disabled, ExpiresAt: 1000}, 1100, 1040, 1040},
		"revoked":                       {keystate.State{Status: keystate.Revoked, RevokedAt: 300}, 400, 310, 300},
		"revoked before its end":        {keystate.State{Status: keystate.Revoked, RevokedAt: 300, ExpiresAt: 1000}, 400, 310, 300},
		"revoked after it":              {keystate.State{Status: keystate.Revoked, RevokedAt: 1500, ExpiresAt: 1000}, 1100, 1040, 1040},
		"an answer leads to it":         {keystate.State{Status: keystate.Active, ExpiresAt: 1000, KeptUntil: 5000}, 5000, 5000, 5000},
		"likewise, and it was revoked":  {keystate.State{Status: keystate.Revoked, RevokedAt: 300, KeptUntil: 5000}, 5000, 5000, 5000},
		"one leads to it for less long": {keystate.State{Status: keystate.Active, ExpiresAt: 1000, KeptUntil: 10}, 1100, 1040, 1040},
	} {
		for retention, want := range map[int64]int64{100: c.long, 10: c.short, 0: c.no} {
			s := keystate.Store{Retention: retention, Margin: 40}
			require.Equal(t, want, s.PurgeAt(&c.state), "%s, retention %d", name, retention)
			require.Equal(t, want, s.RecordOf(&c.state).PurgeAt, name)
		}
	}
}
