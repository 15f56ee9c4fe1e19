package fob_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// What stands at a bound exactly is taken, what is one beyond it is refused.
func TestWhatASpecMayHoldAtMost(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	long := func(n int) string { return strings.Repeat("a", n) }
	scopes := func(n int) (all fob.Scopes) {
		for i := range n {
			all = append(all, fob.Scope(fmt.Sprintf("%0128d", i)))
		}
		return all
	}
	tags := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint("tag-", i))
		}
		return all
	}
	for name, is := range map[string]struct{ taken, refused fob.KeySpec }{
		"subject":           {fob.KeySpec{Subject: fob.App(long(256))}, fob.KeySpec{Subject: fob.App(long(257))}},
		"name":              {fob.KeySpec{Name: long(128)}, fob.KeySpec{Name: long(129)}},
		"a tag":             {fob.KeySpec{Tags: []string{long(64)}}, fob.KeySpec{Tags: []string{long(65)}}},
		"tags":              {fob.KeySpec{Tags: tags(16)}, fob.KeySpec{Tags: tags(17)}},
		"a scope":           {fob.KeySpec{Scopes: fob.Scopes{fob.Scope(long(128))}}, fob.KeySpec{Scopes: fob.Scopes{fob.Scope(long(129))}}},
		"scopes":            {fob.KeySpec{Scopes: scopes(64)}, fob.KeySpec{Scopes: scopes(65)}},
		"first character":   {fob.KeySpec{Scopes: fob.Scopes{"!"}}, fob.KeySpec{Scopes: fob.Scopes{" "}}},
		"last character":    {fob.KeySpec{Scopes: fob.Scopes{"~"}}, fob.KeySpec{Scopes: fob.Scopes{"\x7f"}}},
		"a year":            {fob.KeySpec{NotBefore: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)}, fob.KeySpec{NotBefore: time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)}},
		"the last year":     {fob.KeySpec{ExpiresAt: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}, fob.KeySpec{ExpiresAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"a millisecond":     {fob.KeySpec{TTL: time.Millisecond}, fob.KeySpec{TTL: time.Nanosecond}},
		"a later beginning": {fob.KeySpec{NotBefore: future, ExpiresAt: future.Add(time.Millisecond)}, fob.KeySpec{NotBefore: future, ExpiresAt: future}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, spec := range []*fob.KeySpec{&is.taken, &is.refused} {
				if spec.Subject == (fob.Subject{}) {
					spec.Subject = fob.App("app-42")
				}
			}
			_, key, err := m.IssueKey(t.Context(), is.taken)
			require.NoError(t, err)
			require.ElementsMatch(t, is.taken.Scopes, key.Scopes())
			require.ElementsMatch(t, is.taken.Tags, key.Tags())
			secret, key, err := m.IssueKey(t.Context(), is.refused)
			require.ErrorIs(t, err, fob.ErrInvalid)
			require.Nil(t, key)
			require.Empty(t, secret.Reveal())
		})
	}
}

var future = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)

func TestTheLongestTextOfScopesIsRead(t *testing.T) {
	var all []string
	for i := range 64 {
		all = append(all, fmt.Sprintf("%0128d", i))
	}
	text := strings.Join(all, " ")
	scopes, err := fob.ParseScopes(text)
	require.NoError(t, err)
	require.Len(t, scopes, 64)
	require.Equal(t, text, scopes.String())
	for _, wrong := range []string{text + " a", text + strings.Repeat(" ", 1<<20), strings.Repeat("a ", 64) + "a", "a  b", " ", "a\tb"} {
		_, err = fob.ParseScopes(wrong)
		require.ErrorIs(t, err, fob.ErrInvalid)
		require.NotContains(t, err.Error(), "a b")
	}
}

func TestWhatGrantsMayHoldAtMost(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	list := func(n, size int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%0*d", size, i))
		}
		return all
	}
	grants := func(n int) (all fob.Grants) {
		for i := range n {
			all = append(all, fob.Grant{Type: fmt.Sprint("type-", i), Actions: []string{"a"}, Identifiers: []string{"1"}})
		}
		return all
	}
	one := func(typ string, actions, ids []string) fob.Grants {
		return fob.Grants{{Type: typ, Actions: actions, Identifiers: ids}}
	}
	a, ids := []string{"a"}, []string{"1"}
	for name, is := range map[string]struct{ taken, refused fob.Grants }{
		"grants":           {grants(32), grants(33)},
		"actions":          {one("t", list(64, 3), ids), one("t", list(65, 3), ids)},
		"identifiers":      {one("t", a, list(64, 3)), one("t", a, list(65, 3))},
		"a type's text":    {one(strings.Repeat("t", 256), a, ids), one(strings.Repeat("t", 257), a, ids)},
		"an action's text": {one("t", list(1, 256), ids), one("t", list(1, 257), ids)},
		"no text":          {one("t", a, ids), one("", a, ids)},
		"an empty action":  {one("t", a, ids), one("t", []string{""}, ids)},
		"no action":        {one("t", a, ids), one("t", nil, ids)},
		"UTF-8":            {one("tür", a, ids), one("t\xff", a, ids)},
		"control":          {one("t", []string{"a b"}, ids), one("t", []string{"a\nb"}, ids)},
		"twice":            {one("t", []string{"a", "b"}, ids), one("t", []string{"a", "a"}, ids)},
	} {
		t.Run(name, func(t *testing.T) {
			issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Grants: is.taken})
			require.NoError(t, err)
			require.Equal(t, is.taken, mustVerify(t, m, issued.Access.Reveal()).(*fob.Token).Grants())
			issued, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Grants: is.refused})
			require.ErrorIs(t, err, fob.ErrInvalid)
			require.Zero(t, issued)
		})
	}
}

// Whoever asks about nothing in particular is allowed nothing, even by Any.
func TestNothingIsAllowedOnNothing(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	for _, spec := range []fob.TokenSpec{
		{Scopes: fob.Scopes{fob.ScopeAll}}, {Grants: fob.Grants{{Type: "orders", Actions: []string{fob.Any}, Identifiers: []string{fob.Any}}}},
	} {
		spec.Subject = fob.User("user-7")
		cred := mustVerify(t, m, mustToken(t, m, spec).Access.Reveal())
		require.True(t, cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "42"}))
		require.False(t, cred.AllowsOn("", fob.Resource{Type: "orders", ID: "42"}))
		require.False(t, cred.AllowsOn("read", fob.Resource{ID: "42"}))
		require.False(t, cred.AllowsOn("read", fob.Resource{Type: "orders"}))
	}
}

// Servers use their buffers again: a string of a spec may change under our hands when the
// call has returned, and a slice too.
func TestNothingOfASpecIsKept(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	var buffers [][]byte
	borrowed := func(text string) string {
		b := []byte(text)
		buffers = append(buffers, b)
		return unsafe.String(&b[0], len(b))
	}
	reuse := func() {
		for _, b := range buffers {
			for i := range b {
				b[i] = 'x'
			}
		}
	}
	text, key := mustIssue(t, m, fob.KeySpec{
		Subject: fob.App(borrowed("app-42")), Name: borrowed("export"), Tags: []string{borrowed("team-a")}, Scopes: fob.Scopes{fob.Scope(borrowed("orders:read"))},
	})
	actions, ids := []string{borrowed("read")}, []string{borrowed("42")}
	issued := mustToken(t, m, fob.TokenSpec{Subject: fob.User(borrowed("user-7")), Grants: fob.Grants{{Type: borrowed("orders"), Actions: actions, Identifiers: ids}}})
	reuse()
	actions[0], ids[0] = "write", "43"

	for _, k := range []*fob.Key{key, mustVerify(t, m, text).(*fob.Key)} {
		require.Equal(t, "app-42", k.Subject().Name)
		require.Equal(t, "export", k.Name())
		require.Equal(t, []string{"team-a"}, k.Tags())
		require.Equal(t, fob.Scopes{"orders:read"}, k.Scopes())
		require.Equal(t, "acme_live", k.Prefix())
	}
	want := fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}}
	require.Equal(t, want, issued.Token.Grants())
	require.Equal(t, "user-7", issued.Token.Subject().Name)
	got := issued.Token.Grants()
	got[0].Actions[0], got[0].Identifiers[0] = "write", "43"
	require.Equal(t, want, issued.Token.Grants(), "what is handed out is a copy")
}

// The cache is bounded in bytes, so it has to count all that an entry holds.
func TestTheCacheCountsWhatAKeyHolds(t *testing.T) {
	pepper := func(id string) fob.Config {
		return fob.Config{Peppers: []fob.Pepper{{ID: id, Key: make([]byte, 32)}}}
	}
	const foreignKey = "ab12cd.a-foreign-key"
	takes := func(t *testing.T, cfg fob.Config, spec fob.KeySpec, imported int, reason fob.RevokeReason) int64 {
		t.Helper()
		digest := otherDigest(foreignKey)[:imported]
		if imported > 0 {
			cfg.Imported = &fob.ImportedKeys{Digest: func(string) []byte { return digest }}
		}
		m := newManager(t, bare{memory.New()}, cfg)
		text := foreignKey
		if imported > 0 {
			spec.Subject = fob.App("app-42")
			_, err := m.ImportKey(t.Context(), spec, fob.ImportedKey{Digest: digest})
			require.NoError(t, err)
		} else {
			var key *fob.Key
			text, key = mustIssue(t, m, spec)
			if reason != "" {
				_, err := m.Revoke(t.Context(), key.ID(), reason)
				require.NoError(t, err)
			}
		}
		before := m.CacheStats().Keys
		_, err := m.Verify(t.Context(), text)
		require.Equal(t, reason != "", err != nil, err)
		after := m.CacheStats().Keys
		require.Equal(t, before.Entries+1, after.Entries)
		return after.Bytes - before.Bytes
	}
	plain := takes(t, fob.Config{}, fob.KeySpec{}, 0, "")
	require.Greater(t, plain, int64(100))
	text := strings.Repeat("a", 60)
	require.Equal(t, plain+60-int64(len("app-42")), takes(t, fob.Config{}, fob.KeySpec{Subject: fob.App(text)}, 0, ""))
	require.Equal(t, plain+60, takes(t, fob.Config{}, fob.KeySpec{Name: text}, 0, ""))
	require.Equal(t, plain+2*(16+60), takes(t, fob.Config{}, fob.KeySpec{Tags: []string{text, "b" + text[1:]}}, 0, ""), "and the header of each string")
	require.Equal(t, plain+2*(16+60), takes(t, fob.Config{}, fob.KeySpec{Scopes: fob.Scopes{fob.Scope(text), fob.Scope("b" + text[1:])}}, 0, ""))
	require.Equal(t, plain+60, takes(t, fob.Config{}, fob.KeySpec{}, 0, fob.RevokeReason(text)))
	require.Equal(t, plain+5, takes(t, fob.Config{Prefix: "acme_live_long"}, fob.KeySpec{}, 0, ""))
	require.Equal(t, plain+7, takes(t, pepper("seventh"), fob.KeySpec{}, 0, ""))
	require.Equal(t, int64(2*(32-16)), takes(t, fob.Config{}, fob.KeySpec{}, 32, "")-takes(t, fob.Config{}, fob.KeySpec{}, 16, ""))
}

func TestWordsOfKindsAndStates(t *testing.T) {
	require.Equal(t, []string{"invalid", "key", "token", "invalid"}, []string{fob.Kind(0).String(), fob.KindKey.String(), fob.KindToken.String(), fob.Kind(3).String()})
	require.Equal(t, []string{"invalid", "application", "user", "invalid"},
		[]string{fob.SubjectKind(0).String(), fob.SubjectApplication.String(), fob.SubjectUser.String(), fob.SubjectKind(3).String()})
	for state, word := range map[fob.Status]string{
		0: "invalid", fob.StatusActive: "active", fob.StatusPending: "pending", fob.StatusDisabled: "disabled",
		fob.StatusExpired: "expired", fob.StatusRevoked: "revoked", fob.StatusRevoked + 1: "invalid",
	} {
		require.Equal(t, word, state.String())
	}
}

func TestAnIDIsReadBackAsItWasWritten(t *testing.T) {
	_, key := mustIssue(t, newManager(t, nil, fob.Config{}), fob.KeySpec{})
	text, err := key.ID().MarshalText()
	require.NoError(t, err)
	read := fob.ID{1}
	require.NoError(t, read.UnmarshalText(text))
	require.Equal(t, key.ID(), read)
	for _, wrong := range []string{"a", string(text) + "a", string(text[1:]), strings.Repeat("!", 16), strings.Repeat("a", 1<<20)} {
		require.ErrorIs(t, read.UnmarshalText([]byte(wrong)), fob.ErrInvalid)
	}
	require.NoError(t, read.UnmarshalText(text))
	require.NoError(t, read.UnmarshalText(nil))
	require.True(t, read.IsZero(), "no text is the zero ID, and nothing of the one before is left")
	require.Empty(t, read.String())
}

// The states of a key change at the millisecond that was given.
func TestAKeyChangesItsStateAtTheInstant(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	begins, ends := clock.Now().Add(time.Hour), clock.Now().Add(2*time.Hour)
	text, key := mustIssue(t, m, fob.KeySpec{NotBefore: begins, ExpiresAt: ends})
	for at, want := range map[time.Time]fob.Status{
		begins.Add(-time.Millisecond): fob.StatusPending, begins: fob.StatusActive,
		ends.Add(-time.Millisecond): fob.StatusActive, ends: fob.StatusExpired,
	} {
		require.Equal(t, want, key.StatusAt(at), at)
		clock.set(at)
		for range 2 { // from the store, and from memory
			_, err := m.Verify(t.Context(), text)
			require.ErrorIs(t, err, map[fob.Status]error{fob.StatusPending: fob.ErrNotYetValid, fob.StatusExpired: fob.ErrExpired}[want])
		}
	}
	_, err := m.Verify(t.Context(), text)
	require.NotErrorIs(t, err, fob.ErrRetired, "nobody has rotated it")
	require.Equal(t, key.IssuedAt(), key.AsOf(), "what was just issued is as of then")
	require.Equal(t, "key "+key.ID().String(), key.String())
	require.Equal(t, "key "+key.ID().String(), fmt.Sprintf("%d", key))
	_, ever := mustIssue(t, m, fob.KeySpec{})
	require.Equal(t, fob.StatusActive, ever.StatusAt(time.Time{}), "it has no beginning")
}

// A rotated key that had less left than the overlap has expired, and was not retired.
func TestTheEarlierEndOfARotatedKeyIsWhatIsTold(t *testing.T) {
	clock := newClock()
	for overlap, want := range map[time.Duration]bool{time.Hour: true, 3 * time.Hour: false} {
		m := newManager(t, nil, fob.Config{Clock: clock.Now})
		text, key := mustIssue(t, m, fob.KeySpec{TTL: 2 * time.Hour})
		_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: overlap})
		require.NoError(t, err)
		mustVerify(t, m, text)
		clock.Add(min(overlap, 2*time.Hour))
		for range 2 {
			_, err = m.Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrExpired)
			require.Equal(t, want, errors.Is(err, fob.ErrRetired))
		}
	}
}

// A rotation that stopped before its end has given the key no successor.
func TestAnUnfinishedRotationHasNoSuccessor(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	unfinished(t, store, fob.Config{}, key.ID(), 1)
	for _, k := range []*fob.Key{mustVerify(t, m, text).(*fob.Key), mustVerify(t, newManager(t, store, fob.Config{}), text).(*fob.Key)} {
		require.True(t, k.Successor().IsZero())
		require.True(t, k.ExpiresAt().IsZero())
	}
	_, next, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{Overlap: time.Hour})
	require.NoError(t, err)
	require.Equal(t, next.ID(), mustVerify(t, m, text).(*fob.Key).Successor())
	require.Equal(t, key.ID(), next.Predecessor())
}

// What a spec holds is shown wherever somebody prints it, but for its IdempotencyKey; a
// form that could only hold all of it fails.
func TestASpecShowsAllButItsIdempotencyKey(t *testing.T) {
	spec := fob.KeySpec{Subject: fob.App("app-42"), IdempotencyKey: "c1a4a2f6-very-secret"}
	inYAML, err := spec.MarshalYAML()
	require.NoError(t, err)
	inText, err := spec.MarshalText()
	require.NoError(t, err)
	inJSON, err := spec.MarshalJSON()
	require.NoError(t, err)
	for _, shown := range []string{
		fmt.Sprint(spec), fmt.Sprintf("%+v", &spec), fmt.Sprintf("%#v", spec), spec.String(), fmt.Sprint(inYAML), string(inText), string(inJSON), spec.LogValue().String(),
	} {
		require.Contains(t, shown, "app-42")
		require.Contains(t, shown, "redacted")
		require.NotContains(t, shown, "very-secret")
	}
	require.NotContains(t, fob.KeySpec{Subject: fob.App("app-42")}.String(), "redacted", "there is nothing to hide")
	_, err = spec.MarshalBinary()
	require.Error(t, err)
}
