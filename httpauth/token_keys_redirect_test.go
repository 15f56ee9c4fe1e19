package httpauth_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// web is a small one: what each address answers, a redirect where the value is an
// address or a path, else the list. It notes what was asked for.
type web struct {
	list    string
	leads   map[string]string
	visited []string
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	at := r.URL.String()
	if w.visited = append(w.visited, at); len(w.visited) > 20 {
		return nil, errors.New("went in a circle")
	}
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r}
	body := w.list
	if to, ok := w.leads[at]; ok {
		answer.StatusCode, body = http.StatusTemporaryRedirect, ""
		answer.Header.Set("Location", to)
	}
	answer.Body = io.NopCloser(strings.NewReader(body))
	return answer, nil
}

// Every address that the client is sent to is held against the rule of the
// constructor, and none of those that it refuses is ever asked.
func TestAKeyClientGoesOnlyWhereItMay(t *testing.T) {
	list := listOf(t, issuer(t))
	const start = "https://keys.example/list"
	for name, c := range map[string]struct {
		start string
		leads map[string]string
		hops  int // that are made; -1: refused
	}{
		"none":                         {start, nil, 0},
		"to another path":              {start, map[string]string{start: "/v2"}, 1},
		"to another host over https":   {start, map[string]string{start: "https://other.example/"}, 1},
		"to http":                      {start, map[string]string{start: "http://keys.example/list"}, -1},
		"to http, of the same port":    {start, map[string]string{start: "http://keys.example:443/list"}, -1},
		"to http in capitals":          {start, map[string]string{start: "HTTP://keys.example/list"}, -1},
		"to http here":                 {start, map[string]string{start: "http://localhost/list"}, -1},
		"to http on 127.0.0.1":         {start, map[string]string{start: "http://127.0.0.1:8080/"}, -1},
		"to http on ::1":               {start, map[string]string{start: "http://[::1]/"}, -1},
		"to metadata":                  {start, map[string]string{start: "http://169.254.169.254/latest/"}, -1},
		"with a user":                  {start, map[string]string{start: "https://user@keys.example/"}, -1},
		"with a user and a password":   {start, map[string]string{start: "https://user:pass@keys.example/"}, -1},
		"with an empty user":           {start, map[string]string{start: "https://@keys.example/"}, -1},
		"to a file":                    {start, map[string]string{start: "file:///etc/keys"}, -1},
		"to ftp":                       {start, map[string]string{start: "ftp://keys.example/"}, -1},
		"without a host":               {start, map[string]string{start: "https:///list"}, -1},
		"only a port":                  {start, map[string]string{start: "https://:443/list"}, -1},
		"opaque":                       {start, map[string]string{start: "https:list"}, -1},
		"without a scheme":             {start, map[string]string{start: "//other.example/"}, 1},
		"three":                        {start, map[string]string{start: "/1", "https://keys.example/1": "/2", "https://keys.example/2": "/3"}, 3},
		"four":                         {start, map[string]string{start: "/1", "https://keys.example/1": "/2", "https://keys.example/2": "/3", "https://keys.example/3": "/4"}, -1},
		"in a circle":                  {start, map[string]string{start: start}, -1},
		"to http, and back":            {start, map[string]string{start: "http://keys.example/", "http://keys.example/": start}, -1},
		"to https, then to http":       {start, map[string]string{start: "https://a.example/", "https://a.example/": "http://b.example/"}, -1},
		"here":                         {"http://127.0.0.1/list", nil, 0},
		"here, to another path":        {"http://127.0.0.1/list", map[string]string{"http://127.0.0.1/list": "/v2"}, 1},
		"here, to another port":        {"http://localhost/list", map[string]string{"http://localhost/list": "http://[::1]:81/"}, 1},
		"here, to https elsewhere":     {"http://localhost/list", map[string]string{"http://localhost/list": start}, 1},
		"here, to http elsewhere":      {"http://localhost/list", map[string]string{"http://localhost/list": "http://keys.example/"}, -1},
		"here, to a name like it":      {"http://localhost/list", map[string]string{"http://localhost/list": "http://localhost.example/"}, -1},
		"here, to https and back here": {"http://localhost/list", map[string]string{"http://localhost/list": start, start: "http://localhost/v2"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, policy := range map[string]func(*http.Request, []*http.Request) error{
				"nil":          nil,
				"follow all":   func(*http.Request, []*http.Request) error { return nil },
				"changes them": func(r *http.Request, _ []*http.Request) error { r.Header.Set("X-Seen", "1"); return nil },
			} {
				w := &web{list: list, leads: c.leads}
				theirs := &http.Client{Transport: w, CheckRedirect: policy}
				client, err := httpauth.NewKeyClient(c.start, theirs)
				require.NoError(t, err)
				keys, err := client.TokenKeys(t.Context())
				for _, at := range w.visited {
					require.True(t, strings.HasPrefix(at, "https://") || strings.HasPrefix(c.start, "http://"), "asked %s", at)
				}
				if c.hops < 0 {
					require.Error(t, err, kind)
					require.NotErrorIs(t, err, fob.ErrRejected)
					require.NotContains(t, err.Error(), "pass")
					require.Empty(t, keys)
				} else {
					require.NoError(t, err, kind)
					require.NotEmpty(t, keys)
					require.Len(t, w.visited, 1+c.hops)
				}
				require.Equal(t, policy == nil, theirs.CheckRedirect == nil, "the caller's client is left as it was")
			}
		})
	}
}

// What the caller's client refuses stays refused.
func TestAKeyClientIsNoLaxerThanItsClient(t *testing.T) {
	const start = "https://keys.example/list"
	no := errors.New("not there")
	for name, c := range map[string]struct {
		policy func(*http.Request, []*http.Request) error
		want   error
	}{
		"an error":          {func(*http.Request, []*http.Request) error { return no }, no},
		"the last response": {func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, nil},
		"two at most": {func(_ *http.Request, via []*http.Request) error {
			if len(via) == 2 {
				return no
			}
			return nil
		}, no},
		"to another host": {func(r *http.Request, via []*http.Request) error {
			if r.URL.Path == "/2" && via[0].URL.Path == "/list" {
				return no
			}
			return nil
		}, no},
	} {
		t.Run(name, func(t *testing.T) {
			w := &web{list: listOf(t, issuer(t)), leads: map[string]string{start: "/1", "https://keys.example/1": "/2"}}
			client, err := httpauth.NewKeyClient(start, &http.Client{Transport: w, CheckRedirect: c.policy})
			require.NoError(t, err)
			_, err = client.TokenKeys(t.Context())
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.NotContains(t, w.visited, "https://keys.example/2")
		})
	}
}
