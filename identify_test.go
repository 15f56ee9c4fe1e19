package fob_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestATextTellsWhichCredentialItClaimsToBe(t *testing.T) {
	cfg := tokenConfig(protocol(fob.V4Public))
	cfg.Imported = located()
	m := newManager(t, nil, cfg)
	text, key := mustIssue(t, m, fob.KeySpec{})
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	locals := newManager(t, nil, tokenConfig(protocol(fob.V4Local)))
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "theirs.0123456789", Locator: "theirs"})
	require.NoError(t, err)
	other := fob.ID([]byte("0123456789ABCDEF"))
	typo := []byte(text)
	typo[len(typo)-1] ^= 1
	type identity struct {
		id   fob.ID
		kind fob.Kind
		ok   bool
	}
	for name, c := range map[string]struct {
		text string
		want identity
	}{
		"a key":                         {text, identity{key.ID(), fob.KindKey, true}},
		"a key of another system here":  {relabel(t, text, "other"), identity{key.ID(), fob.KindKey, true}},
		"a key that was made up":        {forge(t, "acme_live", other), identity{other, fob.KindKey, true}},
		"a key with a typing error":     {string(typo), identity{}},
		"a key with no prefix":          {relabel(t, text, "A"), identity{}},
		"a signed token":                {issued.Access.Reveal(), identity{issued.Token.ID(), fob.KindToken, true}},
		"a signed token, damaged":       {strings.Replace(issued.Access.Reveal(), "v4.public.e", "v4.public.A", 1), identity{}},
		"a refresh secret: its session": {issued.Refresh.Reveal(), identity{issued.Token.Session(), fob.KindToken, true}},
		"an encrypted token":            {mustToken(t, locals, fob.TokenSpec{}).Access.Reveal(), identity{}},
		"an imported key":               {"theirs.0123456789", identity{}},
		"nothing":                       {"", identity{}},
		"too much":                      {strings.Repeat("v4.public.", 10_000), identity{}},
	} {
		t.Run(name, func(t *testing.T) {
			var got identity
			got.id, got.kind, got.ok = fob.Identify(c.text)
			require.Equal(t, c.want, got)
		})
	}
	before := m.CacheStats()
	require.Zero(t, before.NegativeHits, "nothing was verified")
	id, _, _ := fob.Identify(issued.Refresh.Reveal())
	_, err = m.Revoke(t.Context(), id, "found in a repository")
	require.NoError(t, err)
	mustNotRefresh(t, m, issued.Refresh, fob.ErrRevoked)
}

// FuzzIdentify: whatever the text, it claims an ID that can be written and read, or none.
// What Verify accepts is what the text has claimed to be.
func FuzzIdentify(f *testing.F) {
	m, err := fob.New(memory.New(), fob.Config{Prefix: "acme_live", SweepInterval: -1, Tokens: &fob.TokenConfig{Issuer: "acme", Protocol: fob.V4Public}})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close() })
	secret, _, err := m.IssueKey(f.Context(), fob.KeySpec{Subject: fob.App("a")})
	require.NoError(f, err)
	issued, err := m.IssueToken(f.Context(), fob.TokenSpec{Subject: fob.App("a"), Refreshable: true})
	require.NoError(f, err)
	for _, text := range []string{secret.Reveal(), issued.Access.Reveal(), issued.Refresh.Reveal(), "", "v4.local.AAAA", "v4.public.e30"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, kind, ok := fob.Identify(text)
		require.Equal(t, ok, kind == fob.KindKey || kind == fob.KindToken)
		require.Equal(t, ok, id != fob.ID{})
		if ok {
			again, err := fob.ParseID(id.String())
			require.NoError(t, err)
			require.Equal(t, id, again)
		}
		if cred, err := m.Verify(t.Context(), text); err == nil {
			require.True(t, ok)
			require.Equal(t, cred.ID(), id)
			require.Equal(t, cred.Kind(), kind)
		}
	})
}

// rejected is the error of a rejection, for one reason and in one word, about the credential
// that is named, or about none that is known.
func rejected(t *testing.T, err, reason error, word string, about fob.ID) {
	t.Helper()
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, fob.ErrRejected)
	require.Equal(t, word, fob.Reason(err))
	id, known := fob.RejectedID(err)
	require.Equal(t, about, id)
	require.Equal(t, about != fob.ID{}, known)
}

func TestARejectionTellsWhichCredentialItWasAbout(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.OtherPrefixes, cfg.Imported = []string{"acme_test"}, located()
	m := newManager(t, nil, cfg)
	verify := func(text string, reason error, word string, about fob.ID) {
		t.Helper()
		for i := range 3 { // from the store, then from memory, then from the store again
			v := fob.Verifier(m)
			if i == 2 {
				v = m.Fresh()
			}
			_, err := v.Verify(t.Context(), text)
			rejected(t, err, reason, word, about)
		}
	}
	issue := func(spec fob.KeySpec) (string, fob.ID) {
		t.Helper()
		text, k := mustIssue(t, m, spec)
		return text, k.ID()
	}
	revoked, revokedID := issue(fob.KeySpec{})
	_, err := m.Revoke(t.Context(), revokedID, "")
	require.NoError(t, err)
	verify(revoked, fob.ErrRevoked, "revoked", revokedID)
	ofAccount, ofAccountID := issue(fob.KeySpec{Subject: fob.App("ci").In("acme")})
	mustVerify(t, m, ofAccount)
	require.NoError(t, m.Disable(t.Context(), fob.Account("acme"), "unpaid"))
	verify(ofAccount, fob.ErrDisabled, "disabled", ofAccountID)
	expired, expiredID := issue(fob.KeySpec{TTL: time.Minute})
	early, earlyID := issue(fob.KeySpec{NotBefore: clock.Now().Add(time.Hour)})
	retired, retiredID := issue(fob.KeySpec{})
	_, _, err = m.RotateKey(t.Context(), retiredID, fob.Rotation{})
	require.NoError(t, err)
	verify(early, fob.ErrNotYetValid, "not_yet_valid", earlyID)
	verify(retired, fob.ErrExpired, "retired", retiredID)
	imported, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "theirs.0123456789", Locator: "theirs"})
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), imported.ID(), "")
	require.NoError(t, err)
	verify("theirs.0123456789", fob.ErrRevoked, "revoked", imported.ID())

	text, key := mustIssue(t, m, fob.KeySpec{})
	ofKey := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
	mustVerify(t, m, ofKey.Access.Reveal())
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	verify(ofKey.Access.Reveal(), fob.ErrRevoked, "revoked", ofKey.Token.ID())
	_, err = m.ExchangeKey(t.Context(), text, fob.TokenSpec{})
	rejected(t, err, fob.ErrRevoked, "revoked", key.ID())
	_, err = m.Refresh(t.Context(), ofKey.Refresh.Reveal())
	rejected(t, err, fob.ErrRevoked, "revoked", ofKey.Token.Session())

	session := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, session.Refresh)
	clock.Add(10 * time.Minute)
	verify(expired, fob.ErrExpired, "expired", expiredID)
	_, err = m.Refresh(t.Context(), session.Refresh.Reveal())
	rejected(t, err, fob.ErrReplayed, "replayed", session.Token.Session())
	_, err = m.Refresh(t.Context(), second.Refresh.Reveal())
	rejected(t, err, fob.ErrRevoked, "revoked", session.Token.Session())
	_, err = m.Refresh(t.Context(), forge(t, "fobrefresh", session.Token.Session()))
	rejected(t, err, fob.ErrUnknown, "unknown", fob.ID{})
	clock.Add(time.Hour)
	verify(session.Access.Reveal(), fob.ErrExpired, "expired", session.Token.ID())

	// Nobody has issued these.
	verify(forge(t, "acme_live", expiredID), fob.ErrUnknown, "unknown", fob.ID{})
	verify(forge(t, "acme_live", fob.ID([]byte("0123456789ABCDEF"))), fob.ErrUnknown, "unknown", fob.ID{})
	verify("theirs.9876543210", fob.ErrUnknown, "unknown", fob.ID{})
	verify(forge(t, "acme_test", expiredID), fob.ErrRejected, "environment", fob.ID{})
	verify("short", fob.ErrMalformed, "malformed", fob.ID{})
	verify("v4.local.AAAA", fob.ErrMalformed, "token_format", fob.ID{})
	verify("v3.local.AAAA", fob.ErrMalformed, "token_protocol", fob.ID{})
}

// A token that this process does not accept, whoever asks, was issued all the same.
func TestATokenForOthersIsKnown(t *testing.T) {
	store := memory.New()
	for word, change := range map[string]func(*fob.TokenConfig){
		"audience": func(c *fob.TokenConfig) { c.Audiences = []string{"others"} },
		"lifetime": func(c *fob.TokenConfig) { c.TTL, c.MaxTTL = time.Second, time.Second },
	} {
		t.Run(word, func(t *testing.T) {
			here, there := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig(change))
			issued := mustToken(t, here, fob.TokenSpec{})
			for range 3 {
				_, err := there.Verify(t.Context(), issued.Access.Reveal())
				rejected(t, err, fob.ErrRejected, word, issued.Token.ID())
			}
		})
	}
}

// A flood of texts that nobody has issued leaves nothing to collect. A rejection of what is
// known costs one small allocation.
func TestWhatARejectionAllocates(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	text, key := mustIssue(t, m, fob.KeySpec{})
	token := mustToken(t, m, fob.TokenSpec{})
	for _, text := range []string{text, token.Access.Reveal()} {
		mustVerify(t, m, text)
	}
	for _, id := range []fob.ID{key.ID(), token.Token.ID()} {
		_, err := m.Revoke(t.Context(), id, "")
		require.NoError(t, err)
	}
	last := "0"
	if strings.HasSuffix(text, last) {
		last = "1"
	}
	wrong := text[:len(text)-1] + last
	for name, c := range map[string]struct {
		text, word string
		most       float64
	}{
		"revoked key":            {text, "revoked", 1},
		"revoked token":          {token.Access.Reveal(), "revoked", 1},
		"unknown secret":         {forge(t, "acme_live", key.ID()), "unknown", 0},
		"unknown key, asked for": {forge(t, "acme_live", fob.ID([]byte("0123456789ABCDEF"))), "unknown", 0},
		"checksum":               {wrong, "checksum", 0},
		"another prefix":         {relabel(t, text, "theirs"), "prefix", 0},
		"no credential":          {"hello", "length", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			allocs := testing.AllocsPerRun(100, func() { _, err = m.Verify(t.Context(), c.text) })
			require.Equal(t, c.word, fob.Reason(err), fmt.Sprint(err))
			require.LessOrEqual(t, allocs, c.most)
		})
	}
}
