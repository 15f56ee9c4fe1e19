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
		fmt.Fprintln(w, "orders of", cred.Subject())
	}))

	secret, _, err := manager.IssueKey(context.Background(), fob.KeySpec{Subject: "app-42", Scopes: fob.Scopes{"orders:read"}})
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
