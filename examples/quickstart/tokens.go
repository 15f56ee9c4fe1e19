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
	secret, key, err := t.keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("shop-7").In("acme"), Scopes: fob.Scopes{"orders:read"}})
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

	t.step("8. The used refresh secret is presented again: somebody has a copy. The whole session ends.")
	_, err = t.keys.Refresh(ctx, issued.Refresh.Reveal())
	t.say("   the server's log says: %v\n", err)
	t.call(ctx, "GET", "/orders/42", "with the new token", next.Access.Reveal(), 401)
	_, err = t.keys.Refresh(ctx, next.Refresh.Reveal())
	t.say("   and the latest refresh secret: %v\n", err)

	return t.account(ctx, secret, key)
}

// account is the part of the story about the account that the key belongs to.
func (t *teller) account(ctx context.Context, secret fob.Secret, key *fob.Key) error {
	t.step("9. The shop makes a key of its own for its printer, within its key: never more than that allows.")
	printer := fob.KeySpec{Subject: fob.App("printer").In("acme"), Scopes: fob.Scopes{"orders:*"}, Within: key}
	_, _, err := t.keys.IssueKey(ctx, printer)
	t.say("   orders:*     %v\n", err)
	printer.Scopes = fob.Scopes{"orders:read"}
	small, _, err := t.keys.IssueKey(ctx, printer)
	if err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with the printer's key", small.Reveal(), 200)

	t.step("10. A user of the shop logs in on two devices, and ends one of the two sessions.")
	var sessions []fob.Issued
	for _, device := range []string{"laptop", "phone"} {
		begun, err := t.keys.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("ann").In("acme"), Scopes: fob.Scopes{"orders:read"}, Refreshable: true, Label: device})
		if err != nil {
			return err
		}
		sessions = append(sessions, begun)
		time.Sleep(2 * time.Millisecond) // they are listed in the order in which they began, by milliseconds
	}
	if _, err := t.keys.Revoke(ctx, sessions[1].Token.Session(), "log out"); err != nil {
		return err
	}
	page, err := t.keys.Sessions(ctx, fob.Query{Subject: fob.User("ann").In("acme")})
	if err != nil {
		return err
	}
	for _, s := range page.Items {
		t.say("   %-7s %s\n", s.Label, s.Status)
	}
	t.call(ctx, "GET", "/orders", "from the phone", sessions[1].Access.Reveal(), 401)

	t.step("11. The account acme does not pay: in one write, every key, token and session of it is off, and on again.")
	if err := t.keys.Disable(ctx, fob.Account("acme"), "unpaid"); err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with the printer's key", small.Reveal(), 401)
	t.call(ctx, "GET", "/orders", "from the laptop", sessions[0].Access.Reveal(), 401)
	if err := t.keys.Enable(ctx, fob.Account("acme")); err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with the printer's key", small.Reveal(), 200)
	t.call(ctx, "GET", "/orders", "from the phone, still", sessions[1].Access.Reveal(), 401)

	t.step("12. A key that is revoked takes its tokens along.")
	another, err := t.keys.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{TTL: time.Minute, Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return err
	}
	if _, err := t.keys.Revoke(ctx, key.ID(), "the shop has closed"); err != nil {
		return err
	}
	t.call(ctx, "GET", "/orders", "with another token of the key", another.Access.Reveal(), 401)
	return nil
}
