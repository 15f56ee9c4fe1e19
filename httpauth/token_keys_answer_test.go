package httpauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// listOf is a well-formed list with the keys of m.
func listOf(t testing.TB, m *fob.Manager) string {
	t.Helper()
	h, err := httpauth.PublicKeys(m)
	require.NoError(t, err)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/keys", nil))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

// onlyUnknown is a list that would be one if it had a key that is known here.
const onlyUnknown = "only keys that nobody knows"

// notTheList are answers that a server, or what stands before it, may give with the
// status 200: each is well formed in its way, and none is what was asked for.
func notTheList(good, kid, paserk string) map[string]string {
	entry := `{"kid":"` + kid + `","paserk":"` + paserk + `"}`
	with := func(more string) string {
		return `{"keys":[{"kid":"` + kid + `","paserk":"` + paserk + `",` + more + `}]}`
	}
	return map[string]string{
		"maintenance":                  `{"error":"maintenance"}`,
		"an empty object":              `{}`,
		"nothing":                      ``,
		"null":                         `null`,
		"a number":                     `0`,
		"a string":                     `"keys"`,
		"true":                         `true`,
		"a bare list":                  `[` + entry + `]`,
		"an empty bare list":           `[]`,
		"keys that are null":           `{"keys":null}`,
		"keys that are an object":      `{"keys":{}}`,
		"keys by their names":          `{"keys":{"` + kid + `":"` + paserk + `"}}`,
		"keys that are a string":       `{"keys":""}`,
		"keys that are false":          `{"keys":false}`,
		"keys in capitals":             strings.Replace(good, `"keys"`, `"KEYS"`, 1),
		"keys in capitals beside":      `{"Keys":[],` + good[1:],
		"keys twice":                   `{"keys":[],` + good[1:],
		"keys twice, the second empty": good[:len(good)-1] + `,"keys":[]}`,
		"keys inside something":        `{"data":` + good + `}`,
		"a second value":               good + `{"error":"maintenance"}`,
		"the list twice":               good + good,
		"a word after it":              good + "x",
		"cut":                          good[:len(good)-1],
		"broken UTF-8":                 `{"keys":[],"note":"` + "\xff" + `"}`,
		"a byte order mark":            "\ufeff" + good,
		"an entry that is null":        `{"keys":[null]}`,
		"null beside a key":            `{"keys":[` + entry + `,null]}`,
		"an entry that is a string":    `{"keys":["` + paserk + `"]}`,
		"an entry that is a list":      `{"keys":[[]]}`,
		"an empty entry":               `{"keys":[{}]}`,
		"a JWKS":                       `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		"an entry without a key":       `{"keys":[{"kid":"` + kid + `"}]}`,
		"an entry without a kid":       `{"keys":[{"paserk":"` + paserk + `"}]}`,
		"an empty kid":                 `{"keys":[{"kid":"","paserk":"` + paserk + `"}]}`,
		"an empty key":                 `{"keys":[{"kid":"` + kid + `","paserk":""}]}`,
		"a kid that is null":           `{"keys":[{"kid":null,"paserk":"` + paserk + `"}]}`,
		"a kid that is a number":       `{"keys":[{"kid":1,"paserk":"` + paserk + `"}]}`,
		"a key that is null":           `{"keys":[{"kid":"` + kid + `","paserk":null}]}`,
		"a key that is a list":         `{"keys":[{"kid":"` + kid + `","paserk":["` + paserk + `"]}]}`,
		"a key that is cut":            `{"keys":[{"kid":"` + kid + `","paserk":"` + paserk[:30] + `"}]}`,
		"a secret key":                 `{"keys":[{"kid":"` + kid + `","paserk":"k4.secret.` + paserk[10:] + `"}]}`,
		"a local key":                  `{"keys":[{"kid":"` + kid + `","paserk":"k4.local.` + paserk[10:] + `"}]}`,
		"some text for a key":          `{"keys":[{"kid":"` + kid + `","paserk":"maintenance"}]}`,
		"PASERK in another case":       `{"keys":[{"kid":"` + kid + `","paserk":"K4.PUBLIC.` + paserk[10:] + `"}]}`,
		"a kid twice":                  with(`"kid":"x"`),
		"a key twice":                  with(`"paserk":"x"`),
		"a key in capitals too":        with(`"PASERK":"x"`),
		"the same entry twice":         `{"keys":[` + entry + `,` + entry + `]}`,
		"a time that is a number":      with(`"active_at":1700000000`),
		"a time that is null":          with(`"retire_at":null`),
		"a time that is empty":         with(`"retire_at":""`),
		"a time that is a date":        with(`"active_at":"2026-01-01"`),
		"a time twice":                 with(`"retire_at":"2026-01-01T00:00:00Z","retire_at":"2036-01-01T00:00:00Z"`),
		"a key of no version":          `{"keys":[{"kid":"x","paserk":"k.public.x"}]}`,
		"a key of another kind":        `{"keys":[{"kid":"x","paserk":"x9.public.x"}]}`,
		"an unknown key without a kid": `{"keys":[{"kid":"","paserk":"k9.public.x"}]}`,
		"an unknown key that is cut":   `{"keys":[{"kid":"x","paserk":"k9.public"}]}`,
		"a key under another's name":   `{"keys":[{"kid":"x","paserk":"` + paserk + `"}]}`,
		"an entry of two numbers":      `{"keys":[[1,2]]}`,
		"a member without a name":      `{"keys":[` + entry + `],x}`,
		"a member that is cut":         `{"keys":[` + entry + `],"note":tru}`,
		onlyUnknown:                    `{"keys":[{"kid":"k9.pid.x","paserk":"k9.public.x"},{"kid":"k8.pid.x","paserk":"k8.public.x"}]}`,
	}
}

// What is no list of keys is a failure of the key server: it never empties the ring
// of a verifier, and no good token is refused for it.
func TestAnAnswerThatIsNotTheListIsNone(t *testing.T) {
	m := issuer(t)
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.NoError(t, err)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	good, other := listOf(t, m), publicKeys(t)[1]
	body := good
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	client, err := httpauth.NewKeyClient(server.URL, nil)
	require.NoError(t, err)
	for name, answer := range notTheList(good, keys[0].ID, keys[0].Public) {
		t.Run(name, func(t *testing.T) {
			now := issued.Token.IssuedAt()
			v, err := fob.NewTokenVerifier(client, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: func() time.Time { return now }})
			require.NoError(t, err)
			body = answer
			got, err := client.TokenKeys(t.Context())
			require.Error(t, err)
			require.NotErrorIs(t, err, fob.ErrRejected)
			require.Empty(t, got)
			_, err = v.Verify(t.Context(), issued.Access.Reveal())
			require.Error(t, err)
			require.NotErrorIs(t, err, fob.ErrRejected, "without a list nothing can be checked")

			body = good
			now = now.Add(2 * time.Second) // it is asked once a second
			_, err = v.Verify(t.Context(), issued.Access.Reveal())
			require.NoError(t, err)
			body = answer
			now = now.Add(time.Minute)
			_, err = v.Verify(t.Context(), issued.Access.Reveal())
			require.NoError(t, err, "the keys that are known go on")

			if name == onlyUnknown {
				return
			}
			// A good key before what is wrong makes it no better.
			body = strings.Replace(answer, `{"keys":[`, `{"keys":[{"kid":"`+other.ID+`","paserk":"`+other.Public+`"},`, 1)
			got, err = client.TokenKeys(t.Context())
			require.Error(t, err)
			require.Empty(t, got)
		})
	}
}

// closing counts the bodies that were closed.
type closing struct{ closed int }

func (c *closing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		resp.Body = &closingBody{resp.Body, c}
	}
	return resp, err
}

type closingBody struct {
	io.ReadCloser
	of *closing
}

func (b *closingBody) Close() error {
	b.of.closed++
	return b.ReadCloser.Close()
}

// A fetch gives its connection back, also where the answer is of no use; and whoever
// prints a client learns nothing of it.
func TestAKeyClientKeepsNothingAndTellsNothing(t *testing.T) {
	m := issuer(t)
	body := listOf(t, m)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	transport := new(closing)
	client, err := httpauth.NewKeyClient(server.URL, &http.Client{Transport: transport})
	require.NoError(t, err)
	_, err = client.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, transport.closed)
	body = "{}"
	_, err = client.TokenKeys(t.Context())
	require.Error(t, err)
	require.Equal(t, 2, transport.closed)

	require.Equal(t, "client of public keys", client.String())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.Equal(t, "client of public keys", fmt.Sprintf(verb, client), verb)
	}
}

// A list may say more than this version asks for.
func TestAListMayHaveMoreInIt(t *testing.T) {
	m := issuer(t)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	entry := `{"use":"sig","kid":"` + keys[0].ID + `","n":[1,{"kid":1,"kid":2}],"paserk":"` + keys[0].Public + `","retire_at":"2031-01-01T01:00:00+01:00"}`
	for _, body := range []string{
		` {"version":2, "keys":[` + entry + `], "next":{"keys":[]}} ` + "\n",
		`{"keys":[` + entry + `,{"kid":"k9.pid.x","paserk":"k9.public.x"}]}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		}))
		client, err := httpauth.NewKeyClient(server.URL, nil)
		require.NoError(t, err)
		got, err := client.TokenKeys(t.Context())
		server.Close()
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, keys[0].ID, got[0].ID)
		require.True(t, got[0].ActiveAt.IsZero())
		require.True(t, got[0].RetireAt.Equal(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)))
	}
}

// The bound is on what comes over the wire and on what is read from it: the client
// asks for no compression and takes none.
func TestTheAnswerIsReadAsItWasSent(t *testing.T) {
	m := issuer(t)
	good := listOf(t, m)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.WriteString(z, good)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	for name, c := range map[string]struct {
		header http.Header
		status int
		body   string
		ok     bool
	}{
		"plain":                    {http.Header{"Content-Type": {"application/json"}}, 200, good, true},
		"identity":                 {http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity"}}, 200, good, true},
		"compressed":               {http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, 200, packed.String(), false},
		"said to be compressed":    {http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"br"}}, 200, good, false},
		"a list of types":          {http.Header{"Content-Type": {"application/json", "text/html"}}, 200, good, false},
		"no type":                  {http.Header{"Content-Type": nil}, 200, good, false},
		"a type that ends in json": {http.Header{"Content-Type": {"application/problem+json"}}, 200, good, false},
		"accepted":                 {http.Header{"Content-Type": {"application/json"}}, 202, good, false},
		"no content":               {http.Header{"Content-Type": {"application/json"}}, 204, "", false},
		"not modified":             {http.Header{"Content-Type": {"application/json"}}, 304, "", false},
		"as much as there may be":  {http.Header{"Content-Type": {"application/json"}}, 200, good + strings.Repeat(" ", 64<<10-len(good)), true},
		"one byte more":            {http.Header{"Content-Type": {"application/json"}}, 200, good + strings.Repeat(" ", 64<<10-len(good)+1), false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan http.Header, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- r.Header.Clone()
				for name, values := range c.header {
					w.Header()[name] = values
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer server.Close()
			client, err := httpauth.NewKeyClient(server.URL, nil)
			require.NoError(t, err)
			got, err := client.TokenKeys(context.Background())
			if c.ok {
				require.NoError(t, err)
				require.NotEmpty(t, got)
			} else {
				require.Error(t, err)
				require.NotErrorIs(t, err, fob.ErrRejected)
			}
			require.Equal(t, []string{"identity"}, (<-asked)["Accept-Encoding"])
		})
	}
}

func FuzzKeyList(f *testing.F) {
	f.Add(`{"keys":[]}`)
	f.Add(`{"error":"maintenance"}`)
	f.Add(`{"keys":[{"kid":"k9.pid.x","paserk":"k9.public.x","active_at":"2026-01-01T00:00:00Z"}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		client, err := httpauth.NewKeyClient("https://keys.example/", &http.Client{Transport: answering(body)})
		require.NoError(t, err)
		keys, err := client.TokenKeys(t.Context())
		if err != nil {
			require.Nil(t, keys)
			return
		}
		require.Contains(t, body, "keys")
		for _, k := range keys {
			parsed, err := fob.ParsePublicTokenKey(k.Public)
			require.NoError(t, err)
			require.Equal(t, parsed.ID, k.ID)
		}
	})
}

// answering is a transport that gives the same answer to everything.
type answering string

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(a))), Request: r,
	}, nil
}
