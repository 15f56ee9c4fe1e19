package fob_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

// sealed makes tokens with any payload, and a verifier that trusts their key: what
// another issuer, or an older version, may have sealed.
type sealed struct {
	key   paseto.SecretKey
	clock *testClock
	*fob.TokenVerifier
}

func newSealed(t testing.TB) sealed {
	t.Helper()
	key, err := paseto.NewSecretKey(paseto.V4Public)
	require.NoError(t, err)
	clock := newClock()
	v, err := fob.NewTokenVerifier(fob.PublicTokenKeys{key.Public().PASERK()}, fob.TokenVerifierConfig{
		Issuer: "acme", Audiences: []string{"api"}, Leeway: 2 * time.Second, Clock: clock.Now,
	})
	require.NoError(t, err)
	return sealed{key, clock, v}
}

func (s sealed) seal(t testing.TB, payload string) string {
	t.Helper()
	text, err := s.key.Seal(payload, `{"kid":"`+s.key.Public().ID()+`"}`, "")
	require.NoError(t, err)
	return text
}

// soundClaims is a payload that is accepted at 09:00.
const soundClaims = `{"iss":"acme","sub":"user-7","aud":"api","sub_type":"user","jti":"0ZqKJ3vT9xWm4cRb","iat":"2026-11-23T09:00:00Z","exp":"2026-11-23T09:15:00Z","use":"access"}`

func TestClaimsThatAreRefused(t *testing.T) {
	s := newSealed(t)
	_, err := s.Verify(t.Context(), s.seal(t, soundClaims))
	require.NoError(t, err)
	change := func(old, new string) string {
		require.Contains(t, soundClaims, old)
		return strings.Replace(soundClaims, old, new, 1)
	}
	for name, c := range map[string]struct {
		payload string
		want    error
	}{
		"no object":            {`[]`, fob.ErrClaims},
		"nothing":              {``, fob.ErrClaims},
		"no issuer":            {change(`"iss":"acme",`, ``), fob.ErrClaims},
		"another issuer":       {change(`"acme"`, `"Acme"`), fob.ErrWrongIssuer},
		"no subject":           {change(`"sub":"user-7",`, ``), fob.ErrClaims},
		"a subject of control": {change(`user-7`, `a\n`), fob.ErrClaims},
		"no audience":          {change(`"aud":"api",`, ``), fob.ErrClaims},
		"another audience":     {change(`"api"`, `"API"`), fob.ErrWrongAudience},
		"audiences":            {change(`"api"`, `["api"]`), fob.ErrClaims},
		"no ID":                {change(`"jti":"0ZqKJ3vT9xWm4cRb",`, ``), fob.ErrClaims},
		"a strange ID":         {change(`0ZqKJ3vT9xWm4cRb`, `1`), fob.ErrClaims},
		"no issue":             {change(`"iat":"2026-11-23T09:00:00Z",`, ``), fob.ErrClaims},
		"no end":               {change(`,"exp":"2026-11-23T09:15:00Z"`, ``), fob.ErrClaims},
		"an end in numbers":    {change(`"2026-11-23T09:15:00Z"`, `1795425300`), fob.ErrClaims},
		"an end of null":       {change(`"2026-11-23T09:15:00Z"`, `null`), fob.ErrClaims},
		"two ends":             {change(`"use"`, `"exp":"2026-11-23T09:59:00Z","use"`), fob.ErrClaims},
		"an end in capitals":   {change(`"use"`, `"EXP":"2026-11-23T09:59:00Z","use"`), fob.ErrClaims},
		"long ago":             {strings.ReplaceAll(soundClaims, "2026", "1999"), fob.ErrExpired},
		"far ahead":            {strings.ReplaceAll(soundClaims, "2026", "9999"), fob.ErrNotYetValid},
		"ended":                {change(`09:15`, `09:00`), fob.ErrTokenLifetime},
		"ended before":         {change(`"2026-11-23T09:15:00Z"`, `"2026-11-23T08:59:57Z"`), fob.ErrTokenLifetime},
		"a year":               {change(`2026-11-23T09:15`, `2027-11-23T09:15`), fob.ErrTokenLifetime},
		"later":                {change(`"use"`, `"nbf":"2026-11-23T09:00:03Z","use"`), fob.ErrNotYetValid},
		"another use":          {change(`access`, `refresh`), fob.ErrClaims},
		"no use":               {change(`,"use":"access"`, ``), fob.ErrClaims},
		"a strange subject":    {change(`"sub_type":"user"`, `"sub_type":"robot"`), fob.ErrClaims},
		"a strange family":     {change(`"use"`, `"family":"x","use"`), fob.ErrClaims},
		"a strange parent":     {change(`"use"`, `"client_id":"x","use"`), fob.ErrClaims},
		"a scope with quotes":  {change(`"use"`, `"scope":"a\"b","use"`), fob.ErrClaims},
		"two spaces":           {change(`"use"`, `"scope":"a  b","use"`), fob.ErrClaims},
		"a grant of nothing":   {change(`"use"`, `"authorization_details":[{"type":"orders","actions":["read"]}],"use"`), fob.ErrClaims},
	} {
		cred, err := s.Verify(t.Context(), s.seal(t, c.payload))
		require.ErrorIs(t, err, c.want, name)
		require.ErrorIs(t, err, fob.ErrRejected, name)
		require.Nil(t, cred)
	}
	// Within the leeway, and not beyond it.
	s.clock.Add(-2 * time.Second)
	text := s.seal(t, soundClaims)
	_, err = s.Verify(t.Context(), text)
	require.NoError(t, err)
	s.clock.Add(15*time.Minute + 4*time.Second - 1)
	_, err = s.Verify(t.Context(), text)
	require.NoError(t, err)
	s.clock.Add(1)
	_, err = s.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrExpired)
}

// TestAFooterThatNamesAnotherKey: the footer of a token is sealed with it.
func TestAFooterThatNamesAnotherKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	first := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	_, err := m.RotateTokenKey(t.Context())
	require.NoError(t, err)
	clock.Add(time.Minute)
	second := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, m, first)
	mustVerify(t, m, second)
	swapped := first[:strings.LastIndex(first, ".")] + second[strings.LastIndex(second, "."):]
	mustReject(t, m, swapped, fob.ErrTokenSeal)
	s := newSealed(t)
	for _, footer := range []string{"", "x", `{"kid":""}`, `{"kid":"` + s.key.Public().ID() + `","kid":"x"}`, `{ "kid":"` + s.key.Public().ID() + `"}`, `{"kid":"k4.pid.x"}`} {
		text, err := s.key.Seal(soundClaims, footer, "")
		require.NoError(t, err)
		_, err = s.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrTokenKey, footer)
	}
}

func TestIssuingATokenWritesNothing(t *testing.T) {
	store := backendtest.NewFault(memory.New())
	m := newManager(t, store, tokenConfig())
	text, _ := mustIssue(t, m, fob.KeySpec{})
	mustToken(t, m, fob.TokenSpec{}) // makes the ring
	before := store.Calls(backendtest.OpPut)
	mustToken(t, m, fob.TokenSpec{})
	_, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{})
	require.NoError(t, err)
	require.Equal(t, before, store.Calls(backendtest.OpPut))
	mustToken(t, m, fob.TokenSpec{Refreshable: true})
	require.Equal(t, before+1, store.Calls(backendtest.OpPut))
}

// FuzzTokenClaims seals whatever payload with a key that is trusted.
func FuzzTokenClaims(f *testing.F) {
	s := newSealed(f)
	f.Add(soundClaims)
	f.Add(`{"iss":"acme","iss":"acme"}`)
	f.Add(strings.Replace(soundClaims, `"use"`, `"scope":"a b","authorization_details":[{"type":"t","actions":["*"],"identifiers":["1"]}],"use"`, 1))
	f.Fuzz(func(t *testing.T, payload string) {
		if len(payload) > 5000 {
			return
		}
		cred, err := s.Verify(context.Background(), s.seal(t, payload))
		if err != nil {
			require.ErrorIs(t, err, fob.ErrRejected)
			require.NotContains(t, err.Error(), "\x00")
			return
		}
		require.NotEmpty(t, cred.Subject().Name)
		require.False(t, cred.ID().IsZero())
		require.True(t, cred.ExpiresAt().After(s.clock.Now().Add(-3*time.Second)))
		require.False(t, cred.Allows(""))
		require.False(t, cred.AllowsOn("", fob.Resource{}))
	})
}

// FuzzVerifyToken offers whatever text to a Manager with tokens.
func FuzzVerifyToken(f *testing.F) {
	m := newManager(f, nil, tokenConfig())
	good := mustToken(f, m, fob.TokenSpec{}).Access.Reveal()
	f.Add(good)
	f.Add("v4.local." + strings.Repeat("A", 90))
	f.Add("v2.public.AAAA.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := m.Verify(context.Background(), text)
		if text == good {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, fob.ErrRejected)
	})
}
