package fob_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestAnIssuedKeyVerifies(t *testing.T) {
	clock := newClock()
	m := newManager(t, bare{memory.New()}, fob.Config{Clock: clock.Now})
	secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{
		Subject: fob.App("app-42"),
		Name:    "billing export",
		Scopes:  fob.Scopes{"orders:read", "orders:list", "orders:read"},
		Tags:    []string{"team-a"},
		TTL:     time.Hour,
	})
	require.NoError(t, err)

	text := secret.Reveal()
	require.Regexp(t, `^acme_live_1[0-9A-Za-z]{54}$`, text)
	require.Equal(t, text[len("acme_live_1"):][:16], key.ID().String())

	cred := mustVerify(t, m, text)
	require.Equal(t, key.ID(), cred.ID())
	require.Equal(t, fob.KindKey, cred.Kind())
	require.Equal(t, "app-42", cred.Subject().Name)
	require.Equal(t, fob.SubjectApplication, cred.Subject().Kind)
	require.Equal(t, fob.Scopes{"orders:read", "orders:list"}, cred.Scopes())
	require.True(t, cred.Allows("orders:read"))
	require.False(t, cred.Allows("orders"))
	require.False(t, cred.Allows("Orders:read"), "scopes are case-sensitive")
	require.False(t, cred.Allows(""))
	require.Equal(t, clock.Now(), cred.IssuedAt())
	require.Equal(t, clock.Now().Add(time.Hour), cred.ExpiresAt())
	require.Equal(t, "billing export", cred.(*fob.Key).Name())
	require.Equal(t, []string{"team-a"}, cred.(*fob.Key).Tags())

	again := mustVerify(t, m, text)
	require.Same(t, cred, again, "the second answer comes from the cache")
}

func TestAKeyWithoutScopesGrantsNothing(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	cred := mustVerify(t, m, text)
	require.Empty(t, cred.Scopes())
	require.False(t, cred.Allows("orders:read"))
	require.False(t, cred.Allows(fob.ScopeAll))

	text, _ = mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{fob.ScopeAll}})
	require.True(t, mustVerify(t, m, text).Allows("orders:read"))
}

func TestWhatIsHandedOutCannotChangeTheKey(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	scopes, tags := fob.Scopes{"a"}, []string{"t"}
	text, _ := mustIssue(t, m, fob.KeySpec{Scopes: scopes, Tags: tags})
	scopes[0], tags[0] = "b", "u"
	cred := mustVerify(t, m, text)
	cred.Scopes()[0] = "c"
	cred.(*fob.Key).Tags()[0] = "v"
	require.True(t, cred.Allows("a"))
	require.Equal(t, []string{"t"}, mustVerify(t, m, text).(*fob.Key).Tags())
}

func TestMalformedTextIsToldApartAndTouchesNoStore(t *testing.T) {
	store := memory.New()
	fault := backendtest.NewFault(store)
	m := newManager(t, fault, fob.Config{
		Prefix:          "acme_live",
		RetiredPrefixes: []string{"acme"},
		OtherPrefixes:   []string{"acme_test"},
	})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	body := text[len("acme_live_"):]
	before := fault.Calls(backendtest.OpGet)

	flip := func(s string, i int, c byte) string { b := []byte(s); b[i] = c; return string(b) }
	other := byte('x')
	if text[30] == 'x' {
		other = 'y'
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":             {"", fob.ErrKeyLength},
		"cut":               {text[:len(text)-1], fob.ErrKeyLength},
		"no prefix":         {body, fob.ErrKeyLength},
		"only separator":    {"_" + body, fob.ErrKeyLength},
		"very long":         {strings.Repeat("a", 1<<20), fob.ErrKeyLength},
		"unknown prefix":    {"evil_live_" + body, fob.ErrKeyPrefix},
		"upper-case prefix": {"ACME_live_" + body, fob.ErrKeyPrefix},
		"later version":     {flip(text, len("acme_live_"), '2'), fob.ErrKeyVersion},
		"space":             {flip(text, 30, ' '), fob.ErrKeyAlphabet},
		"not ASCII":         {flip(text, 30, 0xc3), fob.ErrKeyAlphabet},
		"NUL":               {flip(text, 30, 0), fob.ErrKeyAlphabet},
		"typing error":      {flip(text, 30, other), fob.ErrKeyChecksum},
		"another prefix of ours, checksum of the old one": {"acme_" + body, fob.ErrKeyChecksum},
		"test key with a typing error":                    {"acme_test_" + body, fob.ErrKeyChecksum},
	} {
		t.Run(name, func(t *testing.T) {
			mustReject(t, m, c.text, c.want)
			_, err := m.Verify(t.Context(), c.text)
			require.ErrorIs(t, err, fob.ErrMalformed)
		})
	}
	require.Equal(t, before, fault.Calls(backendtest.OpGet), "malformed text must not reach the store")
}

func TestATestKeyInProductionSaysSo(t *testing.T) {
	store := memory.New()
	test := newManager(t, store, fob.Config{Prefix: "acme_test"})
	live := newManager(t, store, fob.Config{Prefix: "acme_live", OtherPrefixes: []string{"acme_test"}})
	text, _ := mustIssue(t, test, fob.KeySpec{})
	mustVerify(t, test, text)
	mustReject(t, live, text, fob.ErrWrongEnvironment)
}

func TestRelabellingAKeyDoesNotMoveItToAnotherEnvironment(t *testing.T) {
	// Both environments share a store, and the holder of a test key recomputes the
	// checksum for the live prefix.
	store := memory.New()
	test := newManager(t, store, fob.Config{Prefix: "acme_test"})
	live := newManager(t, store, fob.Config{Prefix: "acme_live"})
	text, _ := mustIssue(t, test, fob.KeySpec{})
	relabelled := relabel(t, text, "acme_live")
	mustReject(t, live, relabelled, fob.ErrUnknown)
	both := newManager(t, store, fob.Config{Prefix: "acme_live", Prefixes: []string{"acme_test"}})
	mustVerify(t, both, text) // now in the cache
	mustReject(t, both, relabelled, fob.ErrUnknown)
}

func TestRetiredPrefixesAreAcceptedAndNoLongerIssued(t *testing.T) {
	store := memory.New()
	old := newManager(t, store, fob.Config{Prefix: "acme"})
	text, _ := mustIssue(t, old, fob.KeySpec{})
	m := newManager(t, store, fob.Config{Prefix: "acme_live", Prefixes: []string{"acme_eu"}, RetiredPrefixes: []string{"acme"}})
	mustVerify(t, m, text)
	_, _, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), Prefix: "acme"})
	require.ErrorIs(t, err, fob.ErrInvalid)
	text, _ = mustIssue(t, m, fob.KeySpec{Prefix: "acme_eu"})
	require.True(t, strings.HasPrefix(text, "acme_eu_1"))
	mustVerify(t, m, text)
}

func TestAnUnknownKeyAndAWrongSecretAreUnknown(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	elsewhere := newManager(t, nil, fob.Config{})
	text, key := mustIssue(t, elsewhere, fob.KeySpec{})
	mustReject(t, m, text, fob.ErrUnknown)

	real, _ := mustIssue(t, m, fob.KeySpec{})
	forged := forge(t, "acme_live", mustVerify(t, m, real).ID())
	mustReject(t, m, forged, fob.ErrUnknown)
	mustVerify(t, m, real)
	require.False(t, key.ID().IsZero())
}

func TestTheStoredDigestIsNoCredential(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{}})
	text, key := mustIssue(t, m, fob.KeySpec{})
	rec, err := store.Get(t.Context(), idOf(key))
	require.NoError(t, err)
	block := sha256.Sum256([]byte(text[len("acme_live_"):][:49]))
	require.Contains(t, string(rec.Body), string(block[:]), "the test knows what is stored")
	require.NotContains(t, string(rec.Body), text[len("acme_live_1")+16:][:32], "the secret is not stored")
	for _, presented := range []string{
		string(block[:]), hex.EncodeToString(block[:]), base64.RawURLEncoding.EncodeToString(block[:]),
		"acme_live_" + hex.EncodeToString(block[:])[:55], string(rec.Body), key.ID().String(),
	} {
		_, err := m.Verify(t.Context(), presented)
		require.ErrorIs(t, err, fob.ErrRejected)
	}
}

func TestTimesOfAKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	start := clock.Now()
	text, key := mustIssue(t, m, fob.KeySpec{NotBefore: start.Add(time.Minute), ExpiresAt: start.Add(time.Hour)})
	require.Equal(t, fob.StatusPending, key.StatusAt(start))
	mustReject(t, m, text, fob.ErrNotYetValid)
	clock.Add(time.Minute)
	mustVerify(t, m, text) // from the first instant, although the refusal was cached
	clock.Add(59*time.Minute - time.Millisecond)
	mustVerify(t, m, text)
	clock.Add(time.Millisecond)
	mustReject(t, m, text, fob.ErrExpired)
	require.Equal(t, fob.StatusExpired, key.StatusAt(clock.Now()))
}

func TestExpiryIsReadFromTheClockAtEveryHit(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now, MaxStaleness: time.Hour})
	text, _ := mustIssue(t, m, fob.KeySpec{TTL: time.Second})
	mustVerify(t, m, text)
	clock.Add(time.Second)
	mustReject(t, m, text, fob.ErrExpired)
}

func TestDisableAndEnable(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
	mustReject(t, m, text, fob.ErrDisabled)
	require.NoError(t, m.Disable(t.Context(), key.ID(), ""), "twice is no error")
	require.NoError(t, m.Enable(t.Context(), key.ID()))
	mustVerify(t, m, text)
	_, err := m.Revoke(t.Context(), key.ID(), "gone")
	require.NoError(t, err)
	require.ErrorIs(t, m.Enable(t.Context(), key.ID()), fob.ErrRevoked)
	require.ErrorIs(t, m.Disable(t.Context(), key.ID(), ""), fob.ErrRevoked)
	mustReject(t, m, text, fob.ErrRevoked)
	require.ErrorIs(t, m.Disable(t.Context(), fob.ID{1}, ""), fob.ErrNotFound)
}

func TestUpdateKeyIsACompareAndSet(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}, Name: "old"})
	mustVerify(t, m, text)

	scopes, name := fob.Scopes{"b"}, "new"
	updated, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{IfVersion: key.Version(), Scopes: &scopes, Name: &name})
	require.NoError(t, err)
	require.Greater(t, updated.Version(), key.Version())
	cred := mustVerify(t, m, text)
	require.False(t, cred.Allows("a"))
	require.True(t, cred.Allows("b"))
	require.Equal(t, "new", cred.(*fob.Key).Name())

	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{IfVersion: key.Version(), Scopes: &fob.Scopes{"c"}})
	require.ErrorIs(t, err, fob.ErrConflict)
	require.True(t, mustVerify(t, m, text).Allows("b"))

	bad := fob.Scopes{"has space"}
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &bad})
	require.ErrorIs(t, err, fob.ErrInvalid)
	never := time.Time{}
	soon := time.Now().Add(time.Hour)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &soon})
	require.NoError(t, err)
	require.False(t, mustVerify(t, m, text).ExpiresAt().IsZero())
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &never})
	require.NoError(t, err)
	require.True(t, mustVerify(t, m, text).ExpiresAt().IsZero())
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Name: &name})
	require.ErrorIs(t, err, fob.ErrRevoked)
}

func TestSpecsThatCannotBeIssued(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	past := time.Now().Add(-time.Hour)
	long := strings.Repeat("x", 300)
	for name, spec := range map[string]fob.KeySpec{
		"no subject":            {},
		"long subject":          {Subject: fob.App(long)},
		"subject with NUL":      {Subject: fob.App("a\x00b")},
		"broken UTF-8":          {Subject: fob.App("a\xffb")},
		"unknown subject kind":  {Subject: fob.Subject{Kind: 9, Name: "a"}},
		"long name":             {Subject: fob.App("a"), Name: long},
		"scope with space":      {Subject: fob.App("a"), Scopes: fob.Scopes{"a b"}},
		"scope with quote":      {Subject: fob.App("a"), Scopes: fob.Scopes{`a"b`}},
		"empty scope":           {Subject: fob.App("a"), Scopes: fob.Scopes{""}},
		"empty tag":             {Subject: fob.App("a"), Tags: []string{""}},
		"tag with newline":      {Subject: fob.App("a"), Tags: []string{"a\nb"}},
		"expired":               {Subject: fob.App("a"), ExpiresAt: past},
		"negative TTL":          {Subject: fob.App("a"), TTL: -time.Hour},
		"TTL and ExpiresAt":     {Subject: fob.App("a"), TTL: time.Hour, ExpiresAt: time.Now().Add(time.Hour)},
		"ends before it begins": {Subject: fob.App("a"), TTL: time.Hour, NotBefore: time.Now().Add(2 * time.Hour)},
		"prefix not configured": {Subject: fob.App("a"), Prefix: "other"},
		"short idempotency key": {Subject: fob.App("a"), IdempotencyKey: "short"},
		"too many tags":         {Subject: fob.App("a"), Tags: strings.Split("abcdefghijklmnopq", "")},
	} {
		t.Run(name, func(t *testing.T) {
			secret, key, err := m.IssueKey(t.Context(), spec)
			require.ErrorIs(t, err, fob.ErrInvalid)
			require.True(t, secret.IsZero())
			require.Nil(t, key)
		})
	}
	page, err := m.List(t.Context(), fob.Query{})
	require.NoError(t, err)
	require.Empty(t, page.Items, "a refused spec leaves nothing behind")
}

func TestAfterCloseEverythingIsClosed(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	ctx := context.Background()
	_, err := m.Verify(ctx, text)
	require.ErrorIs(t, err, fob.ErrClosed)
	mustBeUnsure(t, err)
	_, _, err = m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("a")})
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.Revoke(ctx, key.ID(), "")
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.Revoke(ctx, fob.App("a"), "")
	require.ErrorIs(t, err, fob.ErrClosed)
	require.ErrorIs(t, m.Disable(ctx, key.ID(), ""), fob.ErrClosed)
	_, _, err = m.RotateKey(ctx, key.ID(), fob.Rotation{})
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.Get(ctx, key.ID())
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.List(ctx, fob.Query{})
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.Usage(ctx, key.ID())
	require.ErrorIs(t, err, fob.ErrClosed)
	_, err = m.Sweep(ctx)
	require.ErrorIs(t, err, fob.ErrClosed)
}

// With the system's clock, a hit reads the wall clock only now and then: the
// instants at which a key begins and ends are exact all the same.
func TestTheSystemClockIsExactToTheMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil, fob.Config{})
		for _, lifetime := range []time.Duration{time.Millisecond, 99 * time.Millisecond, 100 * time.Millisecond, 101 * time.Millisecond, time.Hour} {
			time.Sleep(time.Millisecond - time.Duration(time.Now().Nanosecond())%time.Millisecond) // times are kept in whole ones
			from := time.Now().Add(10 * time.Millisecond)
			text, _ := mustIssue(t, m, fob.KeySpec{NotBefore: from, ExpiresAt: from.Add(lifetime)})
			mustReject(t, m, text, fob.ErrNotYetValid)
			time.Sleep(10*time.Millisecond - 1)
			mustReject(t, m, text, fob.ErrNotYetValid)
			time.Sleep(time.Nanosecond)
			mustVerify(t, m, text)
			time.Sleep(lifetime - 1)
			mustVerify(t, m, text)
			time.Sleep(time.Nanosecond)
			mustReject(t, m, text, fob.ErrExpired)
		}
	})
}
