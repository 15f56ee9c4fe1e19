package family_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/family"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

func begun() (*family.Family, string) {
	f := &family.Family{
		ID: keytext.NewID(time.UnixMilli(1_700_000_000_000)), Owner: "2user", Parent: backend.ID{3}, Claims: "{}",
		Begun: 1000, Ends: 100_000, IdleUntil: 50_000, TTL: 900,
	}
	return f, f.Begin()
}

// again is the family as it is read from what it was written as.
func again(t *testing.T, f *family.Family) *family.Family {
	rec := f.Record(200_000)
	require.Equal(t, int64(200_000), rec.PurgeAt)
	rec.Version = f.Version
	read, err := family.Decode(&rec)
	require.NoError(t, err)
	require.Equal(t, f, read)
	return read
}

func use(t *testing.T, f *family.Family, presented, access string, now, until int64) string {
	next, err := f.Use(presented, access, now, until)
	require.NoError(t, err)
	require.Equal(t, keytext.OK, keytext.Check(next))
	require.True(t, f.IsCurrent(next))
	require.False(t, f.IsCurrent(presented))
	return next
}

// TestAUsedSecretLeadsToTheNewestPair while it may, however many were used since.
func TestAUsedSecretLeadsToTheNewestPair(t *testing.T) {
	f, first := begun()
	require.True(t, f.IsCurrent(first))
	second := use(t, f, first, "access 2", 2000, 12_000)
	third := use(t, f, second, "access 3", 3000, 13_000)
	f = again(t, f)
	for presented, until := range map[string]int64{first: 12_000, second: 13_000} {
		at := f.LinkOf(presented, until-1)
		require.GreaterOrEqual(t, at, 0)
		secret, access, err := f.Newest(presented, at)
		require.NoError(t, err)
		require.Equal(t, third, secret)
		require.Equal(t, "access 3", access)
		require.Equal(t, -1, f.LinkOf(presented, until))
	}
	require.Equal(t, -1, f.LinkOf(third, 3000), "it was not used")
	_, _, err := f.Newest(third, f.LinkOf(first, 3000))
	require.ErrorIs(t, err, errs.ErrCorrupt, "what was sealed for another secret cannot be opened")

	use(t, f, third, "access 4", 20_000, 20_000)
	for _, presented := range []string{first, second, third} {
		require.Equal(t, -1, again(t, f).LinkOf(presented, 4000), "nothing is answered again after that")
	}
}

// TestAFamilyKnowsItsOwnSecrets from those of another and from what was made up.
func TestAFamilyKnowsItsOwnSecrets(t *testing.T) {
	f, first := begun()
	other, _ := begun()
	other.ID = f.ID
	others := other.Begin()
	second := use(t, f, first, "access", 2000, 2000)
	f = again(t, f)
	require.True(t, f.IssuedOnce(first))
	require.True(t, f.IssuedOnce(second))
	require.False(t, f.IssuedOnce(others))
	require.False(t, f.IssuedOnce(keytext.Format(family.SecretPrefix, f.ID, keytext.NewSecret())))
}

// TestOnlyTheLatestLinksAreKept, so that a record does not grow.
func TestOnlyTheLatestLinksAreKept(t *testing.T) {
	f, secret := begun()
	var used []string
	for i := range int64(40) {
		used = append(used, secret)
		secret = use(t, f, secret, fmt.Sprint("access ", i), 2000+i, 60_000)
	}
	f = again(t, f)
	for i, presented := range used {
		require.Equal(t, max(-1, i-8), f.LinkOf(presented, 3000), i)
	}
}

// TestAFamilyThatEndedHasNothingLeft but what says that it did, and why.
func TestAFamilyThatEndedHasNothingLeft(t *testing.T) {
	f, first := begun()
	second := use(t, f, first, "access", 2000, 12_000)
	f.End(60_000, "left")
	f = again(t, f)
	require.True(t, f.Ended)
	require.Equal(t, int64(60_000), f.EndedAt)
	require.Equal(t, "left", f.Reason)
	require.Equal(t, -1, f.LinkOf(first, 3000))
	require.True(t, f.IssuedOnce(second), "who presents one is told that it was revoked")
}

// TestARecordOfAnotherIsCorrupt, and so is one of another kind.
func TestARecordOfAnotherIsCorrupt(t *testing.T) {
	f, _ := begun()
	moved := f.Record(0)
	r, err := record.Open(&moved, record.Family)
	require.NoError(t, err)
	moved.ID = family.RecordID(backend.ID{2})
	w := record.NewBody()
	for field, v := range r.Fields {
		w.Text(field, v)
	}
	w.Finish(&moved) // so that its checksum is sound
	_, err = family.Decode(&moved)
	require.ErrorIs(t, err, errs.ErrCorrupt)
	other := f.Record(0)
	other.Kind = record.Mark
	_, err = family.Decode(&other)
	require.ErrorIs(t, err, errs.ErrCorrupt)
	f.TTL = 0
	none := f.Record(0)
	_, err = family.Decode(&none)
	require.ErrorIs(t, err, errs.ErrCorrupt)
}
