package httpauth_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/fobkit/fob/internal/errs"
	"github.com/stretchr/testify/require"
)

// site is a server whose one page wants the scope orders:read.
type site struct {
	*httptest.Server
	manager *fob.Manager
	store   *backendtest.Fault
	reasons []error
	key     string
	id      fob.ID
}

func newSite(t testing.TB, opts httpauth.Options) *site {
	t.Helper()
	s := &site{store: backendtest.NewFault(memory.New())}
	m, err := fob.New(s.store, fob.Config{Prefix: "acme_live", SweepInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	s.manager = m
	secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
	require.NoError(t, err)
	s.key, s.id = secret.Reveal(), key.ID()
	if opts.Scopes == nil && !opts.AnyCredential {
		opts.Scopes = fob.Scopes{"orders:read"}
	}
	opts.Observe = func(_ *http.Request, _ int, reason error) { s.reasons = append(s.reasons, reason) }
	guard, err := httpauth.Require(m, opts)
	require.NoError(t, err)
	s.Server = httptest.NewServer(guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, ok := fob.FromContext(r.Context())
		if !ok {
			http.Error(w, "no credential in the context", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, cred.Subject().Name)
	})))
	t.Cleanup(s.Close)
	return s
}

type header = [2]string

func (s *site) get(t testing.TB, method, path string, headers ...header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	require.NoError(t, err)
	for _, h := range headers {
		req.Header.Add(h[0], h[1])
	}
	res, err := s.Client().Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

const realm = `Bearer realm="api"`

func TestAnswers(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	other, _, err := s.manager.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-43"), Scopes: fob.Scopes{"orders:list"}})
	require.NoError(t, err)
	bearer := func(text string) header { return header{"Authorization", "Bearer " + text} }
	key := func(text string) header { return header{"X-API-Key", text} }
	for name, c := range map[string]struct {
		headers   []header
		path      string
		status    int
		challenge string
		reason    error
	}{
		"bearer":                      {[]header{bearer(s.key)}, "/", 200, "", nil},
		"scheme without case":         {[]header{{"Authorization", "bEaReR   " + s.key}}, "/", 200, "", nil},
		"key header":                  {[]header{key(s.key)}, "/", 200, "", nil},
		"key header beside Basic":     {[]header{key(s.key), {"Authorization", "Basic Zm9vOmJhcg=="}}, "/", 200, "", nil},
		"nothing":                     {nil, "/", 401, realm, httpauth.ErrNoCredential},
		"another scheme":              {[]header{{"Authorization", "Basic Zm9vOmJhcg=="}}, "/", 401, realm, httpauth.ErrNoCredential},
		"query string":                {nil, "/?access_token=" + s.key + "&api_key=" + s.key, 401, realm, httpauth.ErrNoCredential},
		"unknown":                     {[]header{bearer("acme_live_10ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz0123451Hls8h")}, "/", 401, realm + `, error="invalid_token"`, fob.ErrUnknown},
		"typing error":                {[]header{bearer(s.key[:40] + "-" + s.key[41:])}, "/", 401, realm + `, error="invalid_token"`, errs.ErrKeyAlphabet},
		"some other text":             {[]header{key("nonsense")}, "/", 401, realm + `, error="invalid_token"`, fob.ErrMalformed},
		"wrong scope":                 {[]header{bearer(other.Reveal())}, "/", 403, realm + `, error="insufficient_scope", scope="orders:read"`, fob.ErrScope},
		"two Authorization":           {[]header{bearer(s.key), bearer(s.key)}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"two key headers":             {[]header{key(s.key), key(s.key)}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"both ways":                   {[]header{bearer(s.key), key(s.key)}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"Bearer alone":                {[]header{{"Authorization", "Bearer"}}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"empty Authorization":         {[]header{{"Authorization", ""}}, "/", 401, realm, httpauth.ErrNoCredential},
		"a bare key in Authorization": {[]header{{"Authorization", s.key}}, "/", 401, realm, httpauth.ErrNoCredential},
		"space inside":                {[]header{bearer(s.key[:20] + " " + s.key[20:])}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"quote inside":                {[]header{bearer(`a"b`)}, "/", 401, realm + `, error="invalid_token"`, fob.ErrMalformed},
		"only equals signs":           {[]header{bearer("===")}, "/", 401, realm + `, error="invalid_token"`, fob.ErrMalformed},
		"long":                        {[]header{bearer(strings.Repeat("a", 9000))}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
		"empty key header":            {[]header{key("")}, "/", 400, realm + `, error="invalid_request"`, httpauth.ErrRequest},
	} {
		t.Run(name, func(t *testing.T) {
			s.reasons = nil
			res := s.get(t, "GET", c.path, c.headers...)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, c.status, res.StatusCode, "%s", body)
			require.Equal(t, c.challenge, res.Header.Get("WWW-Authenticate"))
			require.Contains(t, res.Header.Values("Vary"), "Authorization, X-API-Key")
			if c.status == 200 {
				require.Equal(t, "app-42", string(body))
				require.Empty(t, s.reasons)
				return
			}
			require.Len(t, s.reasons, 1)
			require.ErrorIs(t, s.reasons[0], c.reason)
			require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
			require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
			var problem struct {
				Type, Title, Detail string
				Status              int
			}
			require.NoError(t, json.Unmarshal(body, &problem))
			require.Equal(t, c.status, problem.Status)
			require.Equal(t, http.StatusText(c.status), problem.Title)
			require.NotEmpty(t, problem.Detail)
			require.NotContains(t, string(body), "acme", "nothing of the request comes back")
		})
	}
}

// A client learns nothing about why a credential is bad: all look the same.
func TestAllBadCredentialsLookTheSame(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	issue := func(spec fob.KeySpec) (string, fob.ID) {
		spec.Subject = fob.User("a")
		secret, key, err := s.manager.IssueKey(t.Context(), spec)
		require.NoError(t, err)
		return secret.Reveal(), key.ID()
	}
	revoked, id := issue(fob.KeySpec{})
	_, err := s.manager.Revoke(t.Context(), id, "")
	require.NoError(t, err)
	disabled, id := issue(fob.KeySpec{})
	require.NoError(t, s.manager.Disable(t.Context(), id, ""))
	var seen []string
	for _, text := range []string{revoked, disabled, "nonsense", revoked[:64] + "x", "acme_live_10ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz0123451Hls8h"} {
		res := s.get(t, "GET", "/", header{"Authorization", "Bearer " + text})
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		res.Header.Del("Date")
		seen = append(seen, fmt.Sprint(res.Status, res.Header, string(body)))
	}
	for _, answer := range seen[1:] {
		require.Equal(t, seen[0], answer)
	}
}

func TestRevokedIsRefusedAtOnce(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	h := header{"X-API-Key", s.key}
	require.Equal(t, 200, s.get(t, "GET", "/", h).StatusCode)
	_, err := s.manager.Revoke(t.Context(), s.id, "")
	require.NoError(t, err)
	require.Equal(t, 401, s.get(t, "GET", "/", h).StatusCode)
}

func TestAStoreThatFailsIsServiceUnavailable(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	s.store.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	res := s.get(t, "GET", "/", header{"Authorization", "Bearer " + s.key})
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
	require.Empty(t, res.Header.Get("WWW-Authenticate"))
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NotContains(t, string(body), "injected", "nothing of the failure comes out")
	s.store.Inject(nil)
	require.Equal(t, 200, s.get(t, "GET", "/", header{"Authorization", "Bearer " + s.key}).StatusCode)
}

// What net/http lets through, sent by hand.
func TestRawRequests(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	for name, c := range map[string]struct {
		lines  string
		status int
	}{
		"plain":                {"Authorization: Bearer " + s.key + "\r\n", 200},
		"name without case":    {"aUTHORIZATION: Bearer " + s.key + "\r\n", 200},
		"tab after the scheme": {"Authorization: Bearer\t" + s.key + "\r\n", 400},
		"tab inside":           {"Authorization: Bearer " + s.key[:20] + "\t" + s.key[20:] + "\r\n", 400},
		"Latin-1":              {"Authorization: Bearer " + s.key + "\xe9\r\n", 400},
		"Latin-1 in the key":   {"X-API-Key: " + s.key + "\xe9\r\n", 400},
		"two lines":            {"Authorization: Basic Zm9v\r\nAuthorization: Bearer " + s.key + "\r\n", 400},
		"two, different case":  {"X-Api-Key: " + s.key + "\r\nx-api-key: " + s.key + "\r\n", 400},
		"joined by a comma":    {"Authorization: Bearer " + s.key + ", Bearer " + s.key + "\r\n", 400},
		"folded":               {"Authorization: Bearer\r\n " + s.key + "\r\n", 200},
		"trailing space":       {"Authorization: Bearer " + s.key + "   \r\n", 200},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+c.lines+"Connection: close\r\n\r\n")
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, c.status, res.StatusCode)
		})
	}
}

func TestHeadHasTheHeadersAndNoBody(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	res := s.get(t, "HEAD", "/")
	require.Equal(t, 401, res.StatusCode)
	require.Equal(t, realm, res.Header.Get("WWW-Authenticate"))
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Empty(t, body)
}

func TestAnAnswerToAKeyHeaderIsPrivate(t *testing.T) {
	s := newSite(t, httpauth.Options{AnyCredential: true, KeyHeader: "Acme-Key", Realm: "acme orders"})
	res := s.get(t, "GET", "/", header{"Acme-Key", s.key})
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "private", res.Header.Get("Cache-Control"))
	require.Equal(t, []string{"Authorization, Acme-Key"}, res.Header.Values("Vary"))
	require.Equal(t, `Bearer realm="acme orders"`, s.get(t, "GET", "/", header{"X-API-Key", s.key}).Header.Get("WWW-Authenticate"))
}

func TestAGuardThatWouldNotProtectIsNotBuilt(t *testing.T) {
	s := newSite(t, httpauth.Options{})
	var none *fob.Manager
	scopes := fob.Scopes{"a"}
	resource := func(*http.Request) fob.Resource { return fob.Resource{Type: "orders", ID: "1"} }
	for name, c := range map[string]struct {
		v    fob.Verifier
		opts httpauth.Options
	}{
		"no verifier":                      {nil, httpauth.Options{Scopes: scopes}},
		"nil Manager":                      {none, httpauth.Options{Scopes: scopes}},
		"nil func":                         {fob.VerifierFunc(nil), httpauth.Options{Scopes: scopes}},
		"no scopes":                        {s.manager, httpauth.Options{}},
		"empty scopes":                     {s.manager, httpauth.Options{Scopes: fob.Scopes{}}},
		"empty scope":                      {s.manager, httpauth.Options{Scopes: fob.Scopes{""}}},
		"an empty scope among others":      {s.manager, httpauth.Options{Scopes: fob.Scopes{"a", ""}}},
		"two scopes in one":                {s.manager, httpauth.Options{Scopes: fob.Scopes{"a b"}}},
		"an empty scope beside a resource": {s.manager, httpauth.Options{Scopes: fob.Scopes{""}, Action: "read", Resource: resource}},
		"an empty scope and any":           {s.manager, httpauth.Options{Scopes: fob.Scopes{""}, AnyCredential: true}},
		"both":                             {s.manager, httpauth.Options{Scopes: scopes, AnyCredential: true}},
		"scope with a quote":               {s.manager, httpauth.Options{Scopes: fob.Scopes{`a"b`}}},
		"realm with a quote":               {s.manager, httpauth.Options{Scopes: scopes, Realm: `a"b`}},
		"realm with newline":               {s.manager, httpauth.Options{Scopes: scopes, Realm: "a\r\nb"}},
		"header with colon":                {s.manager, httpauth.Options{Scopes: scopes, KeyHeader: "a:b"}},
		"Authorization":                    {s.manager, httpauth.Options{Scopes: scopes, KeyHeader: "authorization"}},
	} {
		t.Run(name, func(t *testing.T) {
			guard, err := httpauth.Require(c.v, c.opts)
			require.Error(t, err)
			require.Nil(t, guard)
		})
	}
	guard, err := httpauth.Require(s.manager, httpauth.Options{Scopes: scopes})
	require.NoError(t, err)
	require.Panics(t, func() { guard(nil) })
}

func TestAVerifierThatLies(t *testing.T) {
	for name, v := range map[string]fob.VerifierFunc{
		"nothing and no error": func(context.Context, string) (fob.Credential, error) { return nil, nil },
		"a nil key":            func(context.Context, string) (fob.Credential, error) { return (*fob.Key)(nil), nil },
		"an unknown error":     func(context.Context, string) (fob.Credential, error) { return nil, errors.New("x") },
		"busy":                 func(context.Context, string) (fob.Credential, error) { return nil, fob.ErrBusy },
	} {
		t.Run(name, func(t *testing.T) {
			guard, err := httpauth.Require(v, httpauth.Options{AnyCredential: true})
			require.NoError(t, err)
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-API-Key", "some-key")
			guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let through") })).ServeHTTP(w, r)
			require.Equal(t, 503, w.Code)
		})
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("Bearer abc", "")
	f.Add("", "abc")
	f.Add("bearer  a=", "\x00")
	f.Add("Bearer 42|abc", "")
	f.Add("Bearer a,\"b\"", "")
	f.Add("Bearer", "")
	f.Add(" \t", "")
	store := memory.New()
	m, err := fob.New(store, fob.Config{SweepInterval: -1})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close() })
	guard, err := httpauth.Require(m, httpauth.Options{AnyCredential: true})
	require.NoError(f, err)
	h := guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("let through") }))
	f.Fuzz(func(t *testing.T, auth, key string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{auth}
		if key != "" {
			r.Header["X-Api-Key"] = []string{key}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Contains(t, []int{400, 401}, w.Code)
		require.True(t, strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Bearer realm="api"`))
		require.True(t, json.Valid(w.Body.Bytes()))
	})
}

func BenchmarkGuard(b *testing.B) {
	s := newSite(b, httpauth.Options{})
	guard, err := httpauth.Require(s.manager, httpauth.Options{Scopes: fob.Scopes{"orders:read"}})
	require.NoError(b, err)
	served := 0
	page := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ })
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+s.key)
	for name, h := range map[string]http.Handler{"bare": page, "guarded": guard(page)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			served = 0
			n := 0
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r)
				n++
			}
			if served != n {
				b.Fatalf("%d of %d served", served, n)
			}
		})
	}
}
