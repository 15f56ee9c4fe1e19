package httpauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
)

func ExampleRequire() {
	store := memory.New()
	manager, err := fob.New(store, fob.Config{Prefix: "acme_live"})
	if err != nil {
		panic(err)
	}
	defer manager.Close()
	guard, err := httpauth.Require(manager, httpauth.Options{Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		panic(err)
	}
	orders := guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, _ := fob.FromContext(r.Context())
		fmt.Fprintln(w, "orders of", cred.Subject().Name)
	}))

	secret, _, err := manager.IssueKey(context.Background(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		panic(err)
	}
	for _, key := range []string{secret.Reveal(), "guess"} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+key)
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, r)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// 200 ""
	// 401 "Bearer realm=\"api\", error=\"invalid_token\""
}

// CORS goes around the guard: it answers the preflight, which carries no credential,
// and marks every other answer, a refusal too.
func ExampleRequire_cors() {
	const app = "https://app.example"
	cors := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Add("Vary", "Origin")
			if r.Header.Get("Origin") == app {
				h.Set("Access-Control-Allow-Origin", app)
				h.Set("Access-Control-Expose-Headers", "WWW-Authenticate")
			}
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET")
				h.Set("Access-Control-Allow-Headers", "Authorization, X-API-Key")
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	manager, err := fob.New(memory.New(), fob.Config{Prefix: "acme_live"})
	if err != nil {
		panic(err)
	}
	defer manager.Close()
	guard, err := httpauth.Require(manager, httpauth.Options{Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		panic(err)
	}
	orders := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	ask := func(h http.Handler, method string) {
		r := httptest.NewRequest(method, "/orders", nil)
		r.Header.Set("Origin", app)
		if method == http.MethodOptions {
			r.Header.Set("Access-Control-Request-Method", "GET")
			r.Header.Set("Access-Control-Request-Headers", "authorization")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Printf("%s %d %q %q\n", method, w.Code, w.Header().Get("Access-Control-Allow-Origin"), w.Header()["Vary"])
	}
	right, wrong := cors(guard(orders)), guard(cors(orders))
	ask(right, "OPTIONS")
	ask(right, "GET")
	ask(wrong, "OPTIONS")
	// Output:
	// OPTIONS 204 "https://app.example" ["Origin"]
	// GET 401 "https://app.example" ["Origin" "Authorization, X-API-Key"]
	// OPTIONS 401 "" ["Authorization, X-API-Key"]
}
