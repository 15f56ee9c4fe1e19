package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/fobkit/fob"
)

// sealKey returns the key that encrypts the token keys in the database. A service reads it
// from the place of its other secrets; here it is a file beside the database.
func sealKey(dir string) ([]byte, error) {
	path := filepath.Clean(dir) + ".sealkey"
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never returns an error
		err = os.WriteFile(path, key, 0o600)
	}
	return key, err
}

// orderOf says which order a request is about.
func orderOf(r *http.Request) fob.Resource {
	return fob.Resource{Type: "orders", ID: r.PathValue("id")}
}

func order(w http.ResponseWriter, r *http.Request) {
	cred, _ := fob.FromContext(r.Context())
	fmt.Fprintf(w, "order %s of %s\n", r.PathValue("id"), cred.Subject().Name)
}

// tokens is the part of the story about tokens.
func (t *teller) tokens(ctx context.Context) error {
	t.step("6. A key is exchanged for a token of a minute, for one order: safe to hand to a browser.")
	secret, key, err := t.keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("shop-7"), Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return err
	}
	issued, err := t.keys.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{
		TTL: time.Minute, Refreshable: true,
		Grants: fob.Grants{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42"}}},
	})
	if err != nil {
		return err
	}
	t.say("   token  %s…   sealed with %s…\n", issued.Access.Reveal()[:20], issued.Token.KeyID()[:14])
	t.call(ctx, "GET", "/orders/42", "with the token", issued.Access.Reveal(), 200)
	t.call(ctx, "GET", "/orders/43", "with the token", issued.Access.Reveal(), 403)
	t.call(ctx, "GET", "/orders/43", "with the key itself", secret.Reveal(), 200)

	t.step("7. It is refreshed. A refresh secret works once.")
	next, err := t.keys.Refresh(ctx, issued.Refresh.Reveal())
	if err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders/42", "with the new token", next.Access.Reveal(), 200)

	t.step("8. The used refresh secret is presented again: somebody has a copy. The whole family ends.")
	_, err = t.keys.Refresh(ctx, issued.Refresh.Reveal())
	t.say("   the server's log says: %v\n", err)
	t.call(ctx, "GET", "/orders/42", "with the new token", next.Access.Reveal(), 401)
	_, err = t.keys.Refresh(ctx, next.Refresh.Reveal())
	t.say("   and the latest refresh secret: %v\n", err)

	t.step("9. A key that is revoked takes its tokens along.")
	another, err := t.keys.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{TTL: time.Minute, Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with another token of the key", another.Access.Reveal(), 200)
	if _, err := t.keys.Revoke(ctx, key.ID(), "the shop has closed"); err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with another token of the key", another.Access.Reveal(), 401)
	return nil
}
