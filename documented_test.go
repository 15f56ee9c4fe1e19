package fob_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

// Fresh costs the reads that its documentation names.
func TestWhatFreshReads(t *testing.T) {
	store := backendtest.NewFault(memory.New())
	m, err := fob.New(store, fob.Config{
		Prefix: "acme_live", SweepInterval: -1, Tokens: &fob.TokenConfig{}, UsageInterval: time.Hour,
		Imported: &fob.ImportedKeys{Locate: func(p string) (string, bool) { return p[:4], true }, Digest: func(p string) []byte { return []byte(strings.Repeat(p[:8], 2)) }},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	text, key := mustIssue(t, m, fob.KeySpec{})
	const foreign = "ab12cd.secret"
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Digest: []byte(strings.Repeat(foreign[:8], 2))})
	require.NoError(t, err)
	issue := func(spec fob.TokenSpec) string {
		spec.Subject = fob.User("user-7")
		issued, err := m.IssueToken(t.Context(), spec)
		require.NoError(t, err)
		return issued.Access.Reveal()
	}
	exchanged, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Refreshable: true})
	require.NoError(t, err)
	var reads atomic.Int64
	store.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpGet {
			reads.Add(1)
		}
		return backendtest.Injection{}
	})
	for name, c := range map[string]struct {
		text        string
		least, most int64
	}{
		"a key":                           {text, 2, 2},
		"an imported key":                 {foreign, 3, 5},
		"a token":                         {issue(fob.TokenSpec{}), 3, 3},
		"a token with a family":           {issue(fob.TokenSpec{Refreshable: true}), 4, 4},
		"a token of a key, with a family": {exchanged.Access.Reveal(), 6, 6},
	} {
		if c.text == foreign { // its first use writes its digest: then it has changed
			reads.Store(0)
			for range 2 {
				mustVerifyFresh(t, m, c.text)
			}
			require.LessOrEqual(t, reads.Load(), 3*c.most, name)
		}
		for range 2 { // the second time with an answer in memory, of which it makes no use
			reads.Store(0)
			_, err := m.Fresh().Verify(t.Context(), c.text)
			require.NoError(t, err, name)
			require.GreaterOrEqual(t, reads.Load(), c.least, name)
			require.LessOrEqual(t, reads.Load(), c.most, name)
		}
	}
	require.NotEmpty(t, key.ID())
}

func mustVerifyFresh(t *testing.T, m *fob.Manager, text string) {
	t.Helper()
	_, err := m.Fresh().Verify(t.Context(), text)
	require.NoError(t, err)
}

// Which of the reasons against a token are malformed text.
func TestTheClassesOfTokenErrors(t *testing.T) {
	for _, err := range []error{fob.ErrTokenFormat, fob.ErrTokenLength, fob.ErrTokenProtocol, fob.ErrClaims} {
		require.ErrorIs(t, err, fob.ErrMalformed)
	}
	for _, err := range []error{fob.ErrTokenKey, fob.ErrTokenSeal} {
		require.ErrorIs(t, err, fob.ErrUnknown)
		require.NotErrorIs(t, err, fob.ErrMalformed)
	}
	for _, err := range []error{fob.ErrTokenLifetime, fob.ErrWrongIssuer, fob.ErrWrongAudience} {
		require.ErrorIs(t, err, fob.ErrRejected)
		require.NotErrorIs(t, err, fob.ErrMalformed)
	}
}

// The footer is spelled in one way, as the documentation of Token says.
func TestTheFooterIsSpelledInOneWay(t *testing.T) {
	key, err := paseto.NewSecretKey(paseto.V4Public)
	require.NoError(t, err)
	now := time.Unix(1_700_000_000, 0)
	v, err := fob.NewTokenVerifier(fob.PublicTokenKeys{key.Public().PASERK()}, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: func() time.Time { return now }})
	require.NoError(t, err)
	const claims = `{"iss":"acme","sub":"user-7","sub_type":"user","aud":"api","jti":"0123456789abcdef","iat":"2023-11-14T22:13:20Z","nbf":"2023-11-14T22:13:20Z","exp":"2023-11-14T22:23:20Z","use":"access"}`
	verify := func(footer string) error {
		text, err := key.Seal(claims, footer, "")
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), text)
		return err
	}
	id := key.Public().ID()
	require.NoError(t, verify(`{"kid":"`+id+`"}`))
	for _, footer := range []string{
		"", id, `"` + id + `"`, `{}`, `{"kid": "` + id + `"}`, ` {"kid":"` + id + `"}`, `{"kid":"` + id + `"}` + "\n", `{"kid":"` + id + `","v":1}`,
		`{"v":1,"kid":"` + id + `"}`, `{"kid":"x","kid":"` + id + `"}`, `{"KID":"` + id + `"}`, `{"k\u0069d":"` + id + `"}`, `{"kid":"\u006b` + id[1:] + `"}`, `{"kid":["` + id + `"]}`,
	} {
		require.ErrorIs(t, verify(footer), fob.ErrTokenKey, "%q", footer)
	}
}
