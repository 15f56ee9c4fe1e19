package marks_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

var account = record.AccountID("acme")

// recordOf is a record that can have a mark in it.
func recordOf(id record.ID) backend.Record {
	rec := backend.Record{ID: id, Kind: backend.Kind(id[0]), Created: 1}
	switch rec.Kind {
	case record.Subject:
		rec.Owner = "2alice"
	case record.Account:
		rec.Owner = "acme"
	}
	return rec
}

// A mark is read as it was written, by whoever may have it; and is corrupt for whoever may
// not, because it would say more, or less, than somebody meant.
func TestAMarkIsOfWhatItIsAbout(t *testing.T) {
	for name, c := range map[string]struct {
		mark marks.Mark
		of   []record.ID
	}{
		"nothing":                     {marks.Mark{}, nil},
		"a reason":                    {marks.Mark{Reason: "left"}, nil},
		"revoked":                     {marks.Mark{Epoch: 5, Reason: "left"}, []record.ID{subject, account}},
		"disabled":                    {marks.Mark{State: 7, Reason: "unpaid"}, []record.ID{subject, account, token}},
		"enabled":                     {marks.Mark{State: 8}, []record.ID{subject, account, token}},
		"revoked and enabled":         {marks.Mark{Epoch: 5, State: 8}, []record.ID{subject, account}},
		"a token revoked":             {marks.Mark{Before: clock.Forever}, []record.ID{token}},
		"revoked, disabled before":    {marks.Mark{Before: clock.Forever, State: 7}, []record.ID{token}},
		"a token with an epoch":       {marks.Mark{Before: clock.Forever, Epoch: 5}, nil},
		"a token with an end":         {marks.Mark{Before: clock.Forever, Ends: 5}, nil},
		"a token and others held":     {marks.Mark{Before: clock.Forever, State: 7, Held: 4}, nil},
		"all tokens revoked":          {marks.Mark{Epoch: 5, Ends: 5}, []record.ID{issuer}},
		"tokens before revoked":       {marks.Mark{Epoch: 5, Before: 4}, []record.ID{issuer}},
		"both":                        {marks.Mark{Epoch: 6, Ends: 5, Before: 4}, []record.ID{issuer}},
		"tokens before disabled":      {marks.Mark{State: 7, Held: 4}, []record.ID{issuer}},
		"revoked, and disabled later": {marks.Mark{Epoch: 5, Ends: 5, State: 7, Held: 4}, []record.ID{issuer}},
		"ends more than its epoch":    {marks.Mark{Epoch: 5, Ends: 6}, nil},
		"ends without an epoch":       {marks.Mark{Ends: 6}, nil},
		"held without a state":        {marks.Mark{Held: 4}, nil},
		"revoked, held, no state":     {marks.Mark{Epoch: 5, Ends: 5, Held: 4}, nil},
		"revoked, a state, not held":  {marks.Mark{Epoch: 5, Ends: 5, State: 7}, nil},
	} {
		ofToken := slices.Contains(c.of, token)
		for _, id := range []record.ID{subject, account, token} { // of a token and of an issuer: only the ID tells them apart
			rec := recordOf(id)
			rec.PurgeAt = 99
			c.mark.Encode(&rec)
			got, err := marks.Decode(&rec)
			if !slices.Contains(c.of, id) && (id != token || !slices.Contains(c.of, issuer)) {
				require.ErrorIs(t, err, errs.ErrCorrupt, "%s of %x", name, id[0])
				continue
			}
			require.NoError(t, err, "%s of %x", name, id[0])
			want := c.mark
			if id == token && ofToken {
				want.PurgeAt = 99
			}
			require.Equal(t, want, got, name)
		}
	}
	for name, spoil := range map[string]func(*backend.Record){
		"a subject of no kind": func(r *backend.Record) { r.Owner = "alice" },
		"a subject of no name": func(r *backend.Record) { r.Owner = "2" },
		"no subject":           func(r *backend.Record) { r.Owner = "" },
		"another kind":         func(r *backend.Record) { r.Kind = record.Key },
	} {
		rec := recordOf(subject)
		spoil(&rec)
		mark := marks.Mark{Epoch: 5}
		mark.Encode(&rec)
		_, err := marks.Decode(&rec)
		require.ErrorIs(t, err, errs.ErrCorrupt, name)
	}
	rec := backend.Record{ID: account, Kind: record.Account}
	mark := marks.Mark{State: 7}
	mark.Encode(&rec)
	_, err := marks.Decode(&rec)
	require.ErrorIs(t, err, errs.ErrCorrupt, "no account")
}

// A mark of before there were epochs revokes what has no stamp.
func TestAMarkOlderThanEpochs(t *testing.T) {
	rec := recordOf(issuer)
	old := marks.Mark{Before: 5}
	old.Encode(&rec)
	got, err := marks.Decode(&rec)
	require.NoError(t, err)
	require.Equal(t, marks.Mark{Before: 5, Epoch: 1}, got)
	require.True(t, got.EndsToken(0, 4))
	require.False(t, got.EndsToken(0, 5))
	require.False(t, got.EndsToken(1, 4))
}

// FuzzDecode: whatever is in a record, it is a mark that is written again as it was, or it is
// corrupt.
func FuzzDecode(f *testing.F) {
	f.Add(byte(record.Subject), "2alice", []byte{})
	f.Fuzz(func(t *testing.T, kind byte, owner string, fields []byte) {
		rec := backend.Record{ID: record.ID{kind, 1}, Kind: backend.Kind(kind), Owner: owner, Created: 1}
		rec.Body = append([]byte{1}, fields...)
		rec.Body = binary.BigEndian.AppendUint32(rec.Body, record.BodySum(&rec, rec.Body))
		got, err := marks.Decode(&rec)
		if err != nil {
			require.ErrorIs(t, err, errs.ErrCorrupt)
			return
		}
		require.True(t, marks.Is(rec.ID))
		require.NotEqual(t, marks.Mark{}, got, "a mark that says nothing")
		again := rec
		got.Encode(&again)
		back, err := marks.Decode(&again)
		require.NoError(t, err)
		require.Equal(t, got, back)
	})
}

// someMark is one that can be reached from nothing, or any.
func someMark(r *rand.Rand) marks.Mark {
	return marks.Mark{
		Epoch: r.Uint64N(3), Ends: r.Uint64N(3), Before: r.Int64N(3), State: r.Uint64N(4), Held: r.Int64N(3), PurgeAt: r.Int64N(3),
	}
}

// To join marks is to say all that was said, in whatever order it is heard: so processes that
// heard of the same changes in another order, or twice, say the same.
func TestMarksJoinInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 13))
	for range 4000 {
		a, b, c := someMark(r), someMark(r), someMark(r)
		joined := a.Join(b)
		require.Equal(t, joined, b.Join(a))
		require.Equal(t, joined.Join(c), a.Join(b.Join(c)))
		require.Equal(t, a, a.Join(a))
		require.True(t, joined.Covers(&a) && joined.Covers(&b))
		require.True(t, joined.Revokes(&a) && joined.Revokes(&b))
		require.Equal(t, a.Covers(&b), joined == a, "%+v, %+v", a, b)
		// It revokes what either revokes.
		stamp, issuedAt := r.Uint64N(3), r.Int64N(3)
		if a.EndsToken(stamp, issuedAt) || b.EndsToken(stamp, issuedAt) {
			require.True(t, joined.EndsToken(stamp, issuedAt), "%+v, %+v: %d, %d", a, b, stamp, issuedAt)
		}
	}
}

// Whatever is done to a mark, by clocks that go forward or back, its numbers only rise, it is
// on or off as was said last, and what was revoked stays so.
func TestTheNumbersOfAMarkOnlyRise(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 13))
	for range 400 {
		var k marks.Mark
		off, held := false, int64(0) // which is the most of what was asked for since it was on
		for range 20 {
			now := 1_000 + r.Int64N(50)
			var next marks.Mark
			if r.IntN(3) == 0 {
				next = k.Raised(now, "")
				require.Greater(t, next.Epoch, k.Epoch)
				require.GreaterOrEqual(t, next.Epoch, uint64(now))
			} else {
				disable, asked := r.IntN(2) == 0, r.Int64N(3)
				next = k.Switched(disable, asked, now, "")
				if disable && off {
					asked = max(asked, held)
				}
				off, held = disable, asked
			}
			require.Equal(t, off, next.Disabled())
			if off {
				require.Equal(t, held, next.Held)
			}
			require.GreaterOrEqual(t, next.State, k.State)
			require.GreaterOrEqual(t, next.Epoch, k.Epoch)
			require.True(t, next.Covers(&k))
			require.Equal(t, next, next.Join(k), "an older state changes nothing")
			require.Equal(t, next != k, !k.Covers(&next), "what is new is written")
			k = next
		}
	}
}

// What is disabled is refused, and what is revoked says so first.
func TestWhyAHolderRefuses(t *testing.T) {
	on, off, over := marks.Mark{State: 8}, marks.Mark{State: 7}, marks.Mark{Epoch: 5}
	for _, c := range []struct {
		subject, account marks.Mark
		want             error
	}{
		{marks.Mark{}, marks.Mark{}, nil},
		{on, on, nil},
		{off, on, errs.ErrDisabled},
		{on, off, errs.ErrDisabled},
		{marks.Mark{}, off, errs.ErrDisabled},
		{over, marks.Mark{}, errs.ErrRevoked},
		{marks.Mark{}, over, errs.ErrRevoked},
		{off, over, errs.ErrRevoked},
		{over, off, errs.ErrRevoked},
	} {
		h := marks.Holders{Subject: c.subject, Account: c.account}
		require.Equal(t, c.want, h.Refused(4, 4))
		if c.want == errs.ErrRevoked {
			require.NotEqual(t, c.want, h.Refused(5, 5), "it was issued later")
		}
	}
	for held, refused := range map[int64]bool{0: true, 4: false, 5: false, 6: true} {
		k := marks.Mark{State: 7, Held: held}
		require.Equal(t, refused, k.DisablesToken(5), held)
		k.State = 8
		require.False(t, k.DisablesToken(5), held)
	}
}

// A process knows whether something is disabled, by what the ledger did itself and by what
// others did, and tells nobody of an older state.
func TestASetKnowsWhatIsDisabled(t *testing.T) {
	p := newProcess(memory.New(), time.UnixMilli(1_700_000_000_000))
	for _, id := range []record.ID{subject, account, token, issuer} {
		place := marks.Place{ID: id, Owner: recordOf(id).Owner, PurgeAt: 1_800_000_000_000}
		held := int64(0)
		if id == issuer {
			held = 9
		}
		for i, disable := range []bool{true, false, true, true} {
			made, written, err := p.Change(t.Context(), place, func(old marks.Mark, now int64) marks.Mark {
				return old.Switched(disable, held, now, "unpaid")
			})
			require.NoError(t, err)
			require.Equal(t, i < 3, written, "disabled already")
			require.Equal(t, disable, made.Disabled())
			found, _ := p.Get(id)
			require.Equal(t, made.State, found.State)
			require.Equal(t, held, found.Held)
			p.Raise(id, marks.Mark{State: made.State - 1, Held: held})
			found, _ = p.Get(id)
			require.Equal(t, disable, found.Disabled(), "an older state")
		}
	}
}
