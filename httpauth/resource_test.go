package httpauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

func TestAResourceIsAskedForPerRequest(t *testing.T) {
	m, err := fob.New(memory.New(), fob.Config{SweepInterval: -1, Tokens: &fob.TokenConfig{}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	one, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Grants: fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}}})
	require.NoError(t, err)
	all, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Scopes: fob.Scopes{"orders:read"}})
	require.NoError(t, err)
	none, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.NoError(t, err)

	guard, err := httpauth.Require(m, httpauth.Options{Action: "read", Resource: func(r *http.Request) fob.Resource {
		return fob.Resource{Type: "orders", ID: r.PathValue("id")}
	}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("GET /orders/{id}", guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /broken", guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })))
	for _, c := range []struct {
		token fob.Issued
		path  string
		want  int
	}{
		{one, "/orders/42", 200}, {one, "/orders/43", 403}, {all, "/orders/43", 200}, {none, "/orders/42", 403},
		{all, "/broken", 403}, // a route without the identifier
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", c.path, nil)
		r.Header.Set("Authorization", "Bearer "+c.token.Access.Reveal())
		mux.ServeHTTP(w, r)
		require.Equal(t, c.want, w.Code, c.path)
		if c.want == 403 {
			require.Equal(t, `Bearer realm="api", error="insufficient_scope"`, w.Header().Get("WWW-Authenticate"))
		}
	}

	resource := func(*http.Request) fob.Resource { return fob.Resource{} }
	for _, opts := range []httpauth.Options{
		{Action: "read"}, {Resource: resource}, {Action: "read", Resource: resource, AnyCredential: true},
	} {
		_, err := httpauth.Require(m, opts)
		require.Error(t, err)
	}
}
