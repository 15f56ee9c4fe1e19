package httpauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/fobkit/fob/internal/errs"
	"github.com/stretchr/testify/require"
)

func issuer(t *testing.T) *fob.Manager {
	t.Helper()
	m, err := fob.New(memory.New(), fob.Config{SweepInterval: -1, Tokens: &fob.TokenConfig{
		Issuer: "acme", Audiences: []string{"api"}, Protocol: fob.V4Public, SealKey: bytes.Repeat([]byte{7}, 32), KeyLead: 50 * time.Millisecond,
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// TestAVerifierWithPublicKeysAlone follows the keys of an issuer over HTTP.
func TestAVerifierWithPublicKeysAlone(t *testing.T) {
	m := issuer(t)
	h, err := httpauth.PublicKeys(m)
	require.NoError(t, err)
	var fetches atomic.Int64
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	client, err := httpauth.NewKeyClient(server.URL, nil)
	require.NoError(t, err)
	now := time.Now()
	v, err := fob.NewTokenVerifier(client, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: func() time.Time { return now }})
	require.NoError(t, err)

	verify := func(i fob.Issued) error {
		cred, err := v.Verify(context.Background(), i.Access.Reveal())
		require.Equal(t, err == nil, cred != nil)
		return err
	}
	first, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Scopes: fob.Scopes{"a"}})
	require.NoError(t, err)
	now = first.Token.IssuedAt()
	for range 3 {
		require.NoError(t, verify(first))
	}
	require.Equal(t, int64(1), fetches.Load(), "the keys are kept")

	// A new key: known to the verifier as soon as a token names it.
	next, err := m.RotateTokenKey(t.Context())
	require.NoError(t, err)
	time.Sleep(time.Until(next.ActiveAt) + time.Millisecond)
	second, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.NoError(t, err)
	require.Equal(t, next.ID, second.Token.KeyID())
	now = now.Add(2 * time.Second)
	require.NoError(t, verify(second))
	require.NoError(t, verify(first))
	require.Equal(t, int64(2), fetches.Load())

	// The issuer is down: what is known goes on for an hour, what is not is no
	// rejection... of a key that was never heard of.
	down.Store(true)
	now = now.Add(10 * time.Minute)
	require.NoError(t, verify(first))
	now = now.Add(2 * time.Hour)
	err = verify(first)
	require.Error(t, err)
	require.NotErrorIs(t, err, fob.ErrRejected, "could not check")
	down.Store(false)
	now = now.Add(time.Second) // so long it is left alone
	require.ErrorIs(t, verify(first), errs.ErrTokenKey, "its key was retired meanwhile")

	for text, want := range map[string]error{
		"": fob.ErrMalformed, "x": fob.ErrMalformed, "v4.local." + strings.Repeat("A", 128): errs.ErrTokenProtocol,
		"v4.public." + strings.Repeat("A", 30_000): errs.ErrTokenLength, second.Access.Reveal() + "A": fob.ErrRejected,
	} {
		_, err := v.Verify(t.Context(), text)
		require.ErrorIs(t, err, want)
	}
}

func TestAVerifierOfAnotherIssuerOrAudience(t *testing.T) {
	m := issuer(t)
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.NoError(t, err)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	public := fob.PublicTokenKeys{keys[0].Public}
	for want, cfg := range map[error]fob.TokenVerifierConfig{
		nil:                   {Issuer: "acme", Audiences: []string{"billing", "api"}},
		errs.ErrWrongIssuer:   {Issuer: "other", Audiences: []string{"api"}},
		errs.ErrWrongAudience: {Issuer: "acme", Audiences: []string{"billing"}},
		errs.ErrTokenLifetime: {Issuer: "acme", Audiences: []string{"api"}, MaxTTL: time.Minute},
	} {
		v, err := fob.NewTokenVerifier(public, cfg)
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), issued.Access.Reveal())
		require.ErrorIs(t, err, want)
	}
	other := issuer(t)
	foreign, err := other.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.NoError(t, err)
	v, err := fob.NewTokenVerifier(public, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), foreign.Access.Reveal())
	require.ErrorIs(t, err, errs.ErrTokenKey)

	for _, cfg := range []fob.TokenVerifierConfig{{}, {Issuer: "a"}, {Audiences: []string{"a"}}, {Issuer: "a", Audiences: []string{""}}, {Issuer: "a", Audiences: []string{"a"}, Leeway: time.Hour}} {
		_, err := fob.NewTokenVerifier(public, cfg)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
	_, err = fob.ParsePublicTokenKey("k4.public.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA") // the identity
	require.ErrorContains(t, err, "weak")
}

func TestPublicKeys(t *testing.T) {
	m := issuer(t)
	h, err := httpauth.PublicKeys(m)
	require.NoError(t, err)
	ask := func(method string) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/keys", nil))
		return w.Result()
	}
	resp := ask("GET")
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "public, max-age=15", resp.Header.Get("Cache-Control"))
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	var list struct{ Keys []map[string]any }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&list))
	require.Len(t, list.Keys, 1)
	require.NotContains(t, list.Keys[0], "retire_at")
	resp = ask("POST")
	require.Equal(t, 405, resp.StatusCode)
	require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))

	require.NoError(t, m.Close())
	resp = ask("GET")
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))

	_, err = httpauth.PublicKeys(nil)
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = httpauth.PublicKeys((*fob.Manager)(nil))
	require.ErrorIs(t, err, fob.ErrInvalid)

	// Local keys are secrets: nothing of them is published.
	local, err := fob.New(memory.New(), fob.Config{Tokens: &fob.TokenConfig{}})
	require.NoError(t, err)
	defer func() { require.NoError(t, local.Close()) }()
	h, err = httpauth.PublicKeys(local)
	require.NoError(t, err)
	body, err := io.ReadAll(ask("GET").Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"keys":[]}`, string(body))
}

func TestKeyClientRefuses(t *testing.T) {
	for _, address := range []string{"", "http://example.com/keys", "ftp://localhost/keys", "https://user:pass@example.com/keys", "https://", "://"} {
		_, err := httpauth.NewKeyClient(address, nil)
		require.ErrorIs(t, err, fob.ErrInvalid, address)
	}
	m := issuer(t)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	other := keys[0].ID[:len(keys[0].ID)-1] + "A"
	if other == keys[0].ID {
		other = keys[0].ID[:len(keys[0].ID)-1] + "B"
	}
	good := `{"keys":[{"kid":"` + keys[0].ID + `","paserk":"` + keys[0].Public + `"},{"kid":"k9.pid.x","paserk":"k9.public.x"}]}`
	for name, answer := range map[string]struct {
		status    int
		typ, body string
		keys      int
	}{
		"good":          {200, "application/json; charset=utf-8", good, 1},
		"an error":      {500, "application/json", good, -1},
		"a page":        {200, "text/html", good, -1},
		"no JSON":       {200, "application/json", "<html>", -1},
		"too much":      {200, "application/json", good + strings.Repeat(" ", 64<<10), -1},
		"under a name":  {200, "application/json", strings.Replace(good, keys[0].ID, other, 1), -1},
		"a weak key":    {200, "application/json", `{"keys":[{"kid":"x","paserk":"k4.public.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`, -1},
		"an empty list": {200, "application/json", `{"keys":[]}`, 0},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", answer.typ)
			w.WriteHeader(answer.status)
			_, _ = io.WriteString(w, answer.body)
		}))
		client, err := httpauth.NewKeyClient(server.URL, server.Client())
		require.NoError(t, err)
		got, err := client.TokenKeys(t.Context())
		if answer.keys < 0 {
			require.Error(t, err, name)
			require.NotErrorIs(t, err, fob.ErrRejected)
		} else {
			require.NoError(t, err, name)
			require.Len(t, got, answer.keys)
		}
		server.Close()
	}
}
