package httpauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// door is a guard whose verifier lets everybody in, and writes down what it was given.
type door struct {
	http.Handler
	given  []string
	served int
	status int // that Observe was told
}

func newDoor(t *testing.T, opts httpauth.Options) *door {
	t.Helper()
	m, err := fob.New(memory.New(), fob.Config{SweepInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	_, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"a"}})
	require.NoError(t, err)
	d := &door{}
	if opts.Scopes == nil {
		opts.AnyCredential = true
	}
	opts.Observe = func(_ *http.Request, status int, _ error) { d.status = status }
	guard, err := httpauth.Require(fob.VerifierFunc(func(_ context.Context, text string) (fob.Credential, error) {
		d.given = append(d.given, text)
		return key, nil
	}), opts)
	require.NoError(t, err)
	d.Handler = guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, ok := fob.FromContext(r.Context())
		require.True(t, ok)
		d.served++
	}))
	return d
}

// ask sends a request with these headers, as they are.
func (d *door) ask(headers http.Header) *httptest.ResponseRecorder {
	d.given, d.served, d.status = nil, 0, 0
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = headers
	d.ServeHTTP(w, r)
	return w
}

// A key header holds visible ASCII, 8 KiB of it at most, and hands it on as it is.
func TestWhatAKeyHeaderMayHold(t *testing.T) {
	d := newDoor(t, httpauth.Options{})
	check := func(text string, sound bool) {
		t.Helper()
		w := d.ask(http.Header{"X-Api-Key": {text}})
		if !sound {
			require.Equal(t, 400, w.Code, "%q", text[:min(len(text), 10)])
			require.Equal(t, 400, d.status)
			require.Empty(t, d.given)
			require.Zero(t, d.served)
			return
		}
		require.Equal(t, 200, w.Code)
		require.Equal(t, []string{text}, d.given)
		require.Equal(t, 1, d.served)
		require.Equal(t, "private", w.Header().Get("Cache-Control"), "a shared cache does not know what the header is for")
	}
	for c := range 256 {
		for _, text := range []string{"@", "ab@", "@bc", "a@c"} {
			check(strings.Replace(text, "@", string([]byte{byte(c)}), 1), c > ' ' && c <= '~')
		}
	}
	check(strings.Repeat("a", 8192), true)
	check(strings.Repeat("a", 8193), false)
	check("", false)
}

// A bearer credential has the characters of RFC 9110's token68 at least, whatever
// else, and 8 KiB at most.
func TestWhatABearerCredentialMayBe(t *testing.T) {
	d := newDoor(t, httpauth.Options{})
	for _, text := range []string{
		"0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "-", ".", "_", "~", "+", "/", "a=", "a==", "-._~+/==", "=", "==",
		"0", "9", "A", "Z", "a", "z", strings.Repeat("a", 8192),
	} {
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER    "} {
			w := d.ask(http.Header{"Authorization": {scheme + text}})
			require.Equal(t, 200, w.Code, "%q", text[:min(len(text), 10)])
			require.Equal(t, []string{text}, d.given)
			require.Empty(t, w.Header().Get("Cache-Control"), "RFC 9111 knows what Authorization is for")
		}
	}
	for _, text := range []string{"", "a b", "a\x00", "a\n", "\x7f", "é", "a\tb", strings.Repeat("a", 8193)} {
		w := d.ask(http.Header{"Authorization": {"Bearer " + text}})
		require.Equal(t, 400, w.Code, "%q", text[:min(len(text), 10)])
		require.Empty(t, d.given)
	}
}

// tchar is RFC 9110 §5.6.2.
func tchar(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// Another scheme is no credential; what is no scheme makes the request malformed.
func TestWhatASchemeIs(t *testing.T) {
	d := newDoor(t, httpauth.Options{})
	for c := range 256 {
		if c == ' ' {
			continue
		}
		for _, text := range []string{"@ x", "ab@ x", "a@b x"} {
			w := d.ask(http.Header{"Authorization": {strings.Replace(text, "@", string([]byte{byte(c)}), 1)}})
			want := 400
			if tchar(byte(c)) {
				want = 401
			}
			require.Equal(t, want, w.Code, "%#x in %q", c, text)
			require.Equal(t, want, d.status)
			require.Empty(t, d.given)
		}
	}
}

// What stands in a header's name or value is checked when the guard is built.
func TestWhichHeadersAndRealmsAGuardIsBuiltWith(t *testing.T) {
	none := fob.VerifierFunc(func(context.Context, string) (fob.Credential, error) { return nil, fob.ErrUnknown })
	for c := range 256 {
		for _, form := range []string{"@", "X@", "@X", "X-@-X"} {
			text := strings.Replace(form, "@", string([]byte{byte(c)}), 1)
			_, err := httpauth.Require(none, httpauth.Options{AnyCredential: true, KeyHeader: text})
			require.Equal(t, tchar(byte(c)), err == nil, "header %q", text)
			if c < 0x80 {
				_, err = httpauth.Require(none, httpauth.Options{AnyCredential: true, Realm: text})
				require.Equal(t, c >= ' ' && c <= '~' && c != '"' && c != '\\', err == nil, "realm %q", text)
			}
		}
	}
	for _, header := range []string{"Authorization", "AUTHORIZATION", "Cookie", "cookie", "a:b", "a b", ""} {
		_, err := httpauth.Require(none, httpauth.Options{AnyCredential: true, KeyHeader: header})
		require.Equal(t, header == "", err == nil, "%q", header)
	}
	_, err := httpauth.Require(none, httpauth.Options{AnyCredential: true, Realm: "é"})
	require.Error(t, err)
}

func TestARealmAndAHeaderOfOnesOwn(t *testing.T) {
	d := newDoor(t, httpauth.Options{Realm: "orders api", KeyHeader: "x-acme-key"})
	w := d.ask(http.Header{})
	require.Equal(t, `Bearer realm="orders api"`, w.Header().Get("WWW-Authenticate"))
	require.Equal(t, "Authorization, x-acme-key", w.Header().Get("Vary"))
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	require.Equal(t, 401, d.status)
	require.Equal(t, 401, d.ask(http.Header{"X-Api-Key": {"abc"}}).Code, "the default header is none any more")
	require.Equal(t, 200, d.ask(http.Header{"X-Acme-Key": {"abc"}}).Code)
	require.Equal(t, 400, d.ask(http.Header{"X-Acme-Key": {"abc"}, "Authorization": {"Bearer abc"}}).Code)
	require.Equal(t, 400, d.ask(http.Header{"X-Acme-Key": {"abc", "abc"}}).Code)
	require.Equal(t, 400, d.ask(http.Header{"Authorization": {"Bearer abc", "Bearer abc"}}).Code)
	require.Equal(t, 400, d.ask(http.Header{"Authorization": {"Basic abc", "Bearer abc"}}).Code)
}

// Each scope is asked for, and named once in the challenge.
func TestScopesOfAGuard(t *testing.T) {
	for _, c := range []struct {
		scopes    fob.Scopes
		status    int
		challenge string
	}{
		{fob.Scopes{"a"}, 200, ""},
		{fob.Scopes{"a", "a"}, 200, ""},
		{fob.Scopes{"b"}, 403, `Bearer realm="api", error="insufficient_scope", scope="b"`},
		{fob.Scopes{"a", "b", "a", "b"}, 403, `Bearer realm="api", error="insufficient_scope", scope="a b"`},
		{fob.Scopes{"b", "a"}, 403, `Bearer realm="api", error="insufficient_scope", scope="b a"`},
	} {
		d := newDoor(t, httpauth.Options{Scopes: c.scopes})
		w := d.ask(http.Header{"Authorization": {"Bearer x"}})
		require.Equal(t, c.status, w.Code, "%v", c.scopes)
		require.Equal(t, c.challenge, w.Header().Get("WWW-Authenticate"))
		require.Equal(t, c.status == 200, d.served == 1)
	}
}

// What could not be checked is tried again by the client, and throws no credential
// away: no challenge says that it is bad.
func TestServiceUnavailableSaysWhenToTryAgain(t *testing.T) {
	guard, err := httpauth.Require(fob.VerifierFunc(func(context.Context, string) (fob.Credential, error) { return nil, io.ErrUnexpectedEOF }),
		httpauth.Options{AnyCredential: true}) // without Observe
	require.NoError(t, err)
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer x")
	guard(http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Empty(t, w.Header().Values("WWW-Authenticate"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
}

type mapVerifier map[string]fob.Credential

func (v mapVerifier) Verify(context.Context, string) (fob.Credential, error) {
	return nil, fob.ErrUnknown
}

type structVerifier struct{ mapVerifier }

func TestWhatIsNilIsFoundWhenAGuardIsBuilt(t *testing.T) {
	any := httpauth.Options{AnyCredential: true}
	for _, v := range []fob.Verifier{nil, (*fob.Manager)(nil), fob.VerifierFunc(nil), mapVerifier(nil)} {
		_, err := httpauth.Require(v, any)
		require.Error(t, err, "%T", v)
	}
	for _, v := range []fob.Verifier{mapVerifier{}, structVerifier{}, &structVerifier{}} {
		guard, err := httpauth.Require(v, any)
		require.NoError(t, err, "%T", v)
		require.Panics(t, func() { guard(nil) })
		require.Panics(t, func() { guard(http.HandlerFunc(nil)) })
		require.Panics(t, func() { guard((*http.ServeMux)(nil)) })
	}
}

// keySource is a fixed list of keys.
type keySource []fob.TokenKey

func (s keySource) TokenKeys(context.Context) ([]fob.TokenKey, error) { return s, nil }

// publicKeys are one key of each version, with times and without.
func publicKeys(t *testing.T) keySource {
	t.Helper()
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	var all keySource
	for _, text := range []string{"k4.public.HOVqSMgv-ZFioUvFRGEmdOXWH7kxfmXUBVeA_by03DU", "k2.public.HOVqSMgv-ZFioUvFRGEmdOXWH7kxfmXUBVeA_by03DU"} {
		k, err := fob.ParsePublicTokenKey(text)
		require.NoError(t, err)
		all = append(all, k)
	}
	all[0].ActiveAt, all[0].RetireAt = at, at.Add(time.Hour)
	return all
}

func TestAListOfKeysGoesThereAndBack(t *testing.T) {
	keys := publicKeys(t)
	h, err := httpauth.PublicKeys(append(keySource{{ID: "k4.lid.local"}}, keys...))
	require.NoError(t, err)
	var accept string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept = r.Header.Get("Accept")
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	for _, own := range []*http.Client{nil, server.Client()} {
		client, err := httpauth.NewKeyClient(server.URL, own)
		require.NoError(t, err)
		got, err := client.TokenKeys(t.Context())
		require.NoError(t, err)
		require.Equal(t, []fob.TokenKey(keys), got, "the local one is a secret, and not among them")
		require.Equal(t, "application/json", accept)
	}
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		require.Equal(t, want, w.Code, method)
		if want != 200 {
			require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			require.Empty(t, w.Body.String())
			continue
		}
		require.Empty(t, w.Header().Get("Allow"))
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		var list struct{ Keys []map[string]string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
		require.Equal(t, []map[string]string{
			{"kid": keys[0].ID, "paserk": keys[0].Public, "active_at": "2026-11-23T08:00:00Z", "retire_at": "2026-11-23T09:00:00Z"},
			{"kid": keys[1].ID, "paserk": keys[1].Public},
		}, list.Keys)
	}
}

func TestAFetchOfKeysEnds(t *testing.T) {
	client, err := httpauth.NewKeyClient("https://example.com", nil)
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, client.Timeout())
	client, err = httpauth.NewKeyClient("https://example.com", &http.Client{Timeout: time.Minute})
	require.NoError(t, err)
	require.Equal(t, time.Minute, client.Timeout(), "one's own client is used as it is")
}

type brokenSource struct{}

func (brokenSource) TokenKeys(context.Context) ([]fob.TokenKey, error) { return nil, fob.ErrBusy }

func TestASourceThatFailsPublishesNothing(t *testing.T) {
	h, err := httpauth.PublicKeys(brokenSource{})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, 503, w.Code)
	require.Empty(t, w.Body.String(), "an empty list would make every token bad")
	require.Equal(t, http.Header{"Cache-Control": {"no-store"}}, w.Header())
}

func TestFromWhereKeysAreFetched(t *testing.T) {
	for address, want := range map[string]bool{
		"https://example.com/keys": true, "https://example.com": true, "https://10.0.0.1:8443/keys": true, "https://localhost/keys": true,
		"http://localhost/keys": true, "http://localhost:8080/keys": true, "http://127.0.0.1:8080/keys": true, "http://[::1]:8080/keys": true,
		"http://example.com/keys": false, "http://localhost.example.com/keys": false, "http://10.0.0.1/keys": false, "http://[::2]/keys": false,
		"ftp://localhost/keys": false, "ftp://example.com/keys": false, "//example.com/keys": false, "example.com/keys": false, "/keys": false, "": false,
		"https:///keys": false, "https://user@example.com/keys": false, "https://user:pass@example.com/keys": false, "http://user@localhost/keys": false,
		"https://example.com/\x00": false, "https://exa mple.com/": false,
	} {
		client, err := httpauth.NewKeyClient(address, nil)
		require.Equal(t, want, err == nil, "%q", address)
		require.Equal(t, want, client != nil, "%q", address)
		if !want {
			require.ErrorIs(t, err, fob.ErrInvalid)
		}
	}
}

// An answer that is not what PublicKeys publishes is no list of keys: not an empty
// one, which would make every token bad.
func TestWhatIsNoListOfKeys(t *testing.T) {
	keys := publicKeys(t)
	one := fmt.Sprintf(`{"kid":%q,"paserk":%q}`, keys[0].ID, keys[0].Public)
	list := func(size int) string {
		text := `{"keys":[` + one + `]}`
		return text + strings.Repeat(" ", size-len(text))
	}
	for name, answer := range map[string]struct {
		status int
		typ    string
		body   string
		length string // Content-Length, where it is not the body's
		keys   int
	}{
		"as it should be":         {200, "application/json", list(1000), "", 1},
		"64 KiB":                  {200, "application/json", list(64 << 10), "", 1},
		"a byte more":             {200, "application/json", list(64<<10 + 1), "", -1},
		"cut":                     {200, "application/json", list(1000), "2000", -1},
		"another status":          {201, "application/json", list(1000), "", -1},
		"moved":                   {204, "application/json", "", "", -1},
		"no type":                 {200, "", list(1000), "", -1},
		"another type":            {200, "application/jsonx", list(1000), "", -1},
		"a type of another case":  {200, "Application/JSON;charset=utf-8", list(1000), "", 1},
		"another name":            {200, "application/json", strings.Replace(list(1000), keys[0].ID, keys[1].ID, 1), "", -1},
		"a key of half its size":  {200, "application/json", strings.Replace(list(1000), keys[0].Public, keys[0].Public[:30], 1), "", -1},
		"a version of the future": {200, "application/json", strings.Replace(list(1000), "k4.public.", "k6.public.", 1), "", -1},
		"no JSON at all":          {200, "application/json", "keys", "", -1},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{answer.typ}
			if answer.length != "" {
				w.Header().Set("Content-Length", answer.length)
			}
			w.WriteHeader(answer.status)
			_, _ = io.WriteString(w, answer.body)
		}))
		client, err := httpauth.NewKeyClient(server.URL, server.Client())
		require.NoError(t, err)
		got, err := client.TokenKeys(t.Context())
		require.Equal(t, answer.keys >= 0, err == nil, "%s: %v", name, err)
		if answer.keys >= 0 {
			require.Len(t, got, answer.keys, name)
			require.NotNil(t, got)
		} else {
			require.Nil(t, got, name)
		}
		server.Close()
		_, err = client.TokenKeys(t.Context())
		require.Error(t, err, "nobody answers any more")
	}
}
