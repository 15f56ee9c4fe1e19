package fob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
)

// open makes a Manager for an example. A service opens backend/badger, say, in place of the
// store in memory, and handles the error.
func open(cfg fob.Config) *fob.Manager {
	cfg.Prefix = "acme_live"
	keys, err := fob.New(memory.New(), cfg)
	if err != nil {
		panic(err)
	}
	return keys
}

// sure is for examples: a service handles the error.
func sure[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A key is shown to its user once. The store keeps a digest.
func ExampleManager_IssueKey() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()

	secret, key, err := keys.IssueKey(ctx, fob.KeySpec{
		Subject: fob.App("ci").In("acme"),
		Name:    "deploys",
		Scopes:  fob.Scopes{"orders:read"},
		TTL:     90 * 24 * time.Hour,
	})
	fmt.Println(err, key.Subject(), key.Scopes())
	fmt.Println(secret, len(secret.Reveal()))
	// Output:
	// <nil> application ci of acme orders:read
	// [redacted] 65
}

// Verify is called on every request. An error that is ErrRejected is the client's fault, any
// other one is not.
func ExampleManager_Verify() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()
	secret, _, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("ci"), Scopes: fob.Scopes{"orders:read"}})

	for _, presented := range []string{secret.Reveal(), secret.Reveal() + "x", "acme_live_1nonsense"} {
		cred, err := keys.Verify(ctx, presented)
		switch {
		case err == nil:
			fmt.Println("200", cred.Subject().Name, cred.Allows("orders:read"), cred.Allows("orders:write"))
		case errors.Is(err, fob.ErrRejected):
			fmt.Println("401", fob.Reason(err))
		default:
			fmt.Println("503", fob.Reason(err))
		}
	}
	// Output:
	// 200 ci true false
	// 401 length
	// 401 length
}

// A scope that ends in ":*" covers everything with that beginning. A grant is about single
// resources. A role is looked up when the credential is verified.
func ExampleScopes() {
	ctx := context.Background()
	keys := open(fob.Config{Roles: fob.Roles{"auditor": {"reports:*"}}})
	defer keys.Close()
	secret, _, _ := keys.IssueKey(ctx, fob.KeySpec{
		Subject: fob.App("ci"),
		Scopes:  fob.Scopes{"orders:*"},
		Roles:   []string{"auditor"},
		Grants:  fob.Grants{{Type: "project", Actions: []string{"read"}, Identifiers: []string{"7"}}},
	})

	cred := sure(keys.Verify(ctx, secret.Reveal()))
	fmt.Println(cred.Allows("orders:items:read"), cred.Allows("reports:read"), cred.Allows("users:read"))
	fmt.Println(cred.AllowsOn("read", fob.Resource{Type: "orders", ID: "42"}))
	fmt.Println(cred.AllowsOn("read", fob.Resource{Type: "project", ID: "7"}), cred.AllowsOn("read", fob.Resource{Type: "project", ID: "8"}))
	// Output:
	// true true false
	// true
	// true false
}

// A rotation with an overlap cuts nobody off.
func ExampleManager_RotateKey() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()
	old, key, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("ci")})

	fresh, next, err := keys.RotateKey(ctx, key.ID(), fob.Rotation{Overlap: 24 * time.Hour})
	fmt.Println(err, next.Predecessor() == key.ID())
	for _, secret := range []fob.Secret{old, fresh} {
		_, err := keys.Verify(ctx, secret.Reveal())
		fmt.Println(err)
	}
	// Output:
	// <nil> true
	// <nil>
	// <nil>
}

// A key is exchanged for a token that allows less and lasts a shorter time. If the key is
// revoked, so is the token.
func ExampleManager_ExchangeKey() {
	ctx, keys := context.Background(), open(fob.Config{Tokens: &fob.TokenConfig{}})
	defer keys.Close()
	secret, key, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("shop"), Scopes: fob.Scopes{"orders:*"}})

	issued := sure(keys.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{Scopes: fob.Scopes{"orders:read"}, TTL: time.Minute}))
	token := sure(keys.Verify(ctx, issued.Access.Reveal()))
	fmt.Println(token.Subject(), token.Scopes())
	_, err := keys.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{Scopes: fob.Scopes{"users:read"}})
	fmt.Println(errors.Is(err, fob.ErrScope))
	sure(keys.Revoke(ctx, key.ID(), "the shop has closed"))
	_, err = keys.Verify(ctx, issued.Access.Reveal())
	fmt.Println(err)
	// Output:
	// application shop orders:read
	// true
	// fob: credential revoked
}

// A refresh secret works once. If it is used again, somebody has a copy: the session ends.
func ExampleManager_Refresh() {
	ctx := context.Background()
	keys := open(fob.Config{Tokens: &fob.TokenConfig{RefreshGrace: -1}})
	defer keys.Close()
	issued := sure(keys.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("ann").In("acme"), Refreshable: true, Label: "laptop"}))

	next, err := keys.Refresh(ctx, issued.Refresh.Reveal())
	fmt.Println(err)
	_, err = keys.Refresh(ctx, issued.Refresh.Reveal())
	fmt.Println(fob.Reason(err))
	_, err = keys.Verify(ctx, next.Access.Reveal())
	fmt.Println(fob.Reason(err))
	for _, s := range sure(keys.Sessions(ctx, fob.Query{Account: "acme"})).Items {
		fmt.Println(s.Subject.Name, s.Label, s.Status)
	}
	// Output:
	// <nil>
	// replayed
	// revoked
	// ann laptop revoked
}

// Everything of an account is suspended in one write, and comes back as it was.
func ExampleManager_Disable() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()
	one, _, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("ci").In("acme")})
	two, key, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.User("ann").In("acme")})
	tell := func() {
		_, err1 := keys.Verify(ctx, one.Reveal())
		_, err2 := keys.Verify(ctx, two.Reveal())
		fmt.Printf("%q %q\n", fob.Reason(err1), fob.Reason(err2))
	}

	_ = keys.Disable(ctx, key.ID(), "on leave")
	tell()
	_ = keys.Disable(ctx, fob.Account("acme"), "unpaid")
	tell()
	_ = keys.Enable(ctx, fob.Account("acme"))
	tell() // what was off by itself stays off
	receipt := sure(keys.Revoke(ctx, fob.Account("acme"), "left"))
	tell()
	fmt.Println(receipt.EverywhereBy.Sub(receipt.At))
	// Output:
	// "" "disabled"
	// "disabled" "disabled"
	// "" "disabled"
	// "revoked" "revoked"
	// 2s
}

// A list is walked a page at a time; the usage of a page is read in one call.
func ExampleManager_List() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()
	for _, name := range []string{"deploys", "backups", "reports"} {
		sureKey(keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("ci").In("acme"), Name: name, Tags: []string{"prod"}}))
		time.Sleep(2 * time.Millisecond) // keys are listed by the millisecond of their issue
	}

	for q := (fob.Query{Account: "acme", Tag: "prod", Order: fob.NewestFirst, WithUsage: true, Limit: 2}); ; {
		page := sure(keys.List(ctx, q))
		for _, key := range page.Items {
			usage, _ := key.Usage()
			fmt.Println(key.Name(), usage.Count)
		}
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
		fmt.Println("next page")
	}
	n, exact, _ := keys.Count(ctx, fob.Query{Account: "acme"})
	fmt.Println(n, exact)
	// Output:
	// reports 0
	// backups 0
	// next page
	// deploys 0
	// 3 true
}

func sureKey(_ fob.Secret, key *fob.Key, err error) *fob.Key { return sure(key, err) }

// Every change is an event, with who made it.
func ExampleObserver() {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "id" {
			return slog.Attr{}
		}
		return a
	}}))
	revoked := 0
	count := fob.ObserverFunc(func(_ context.Context, e fob.Event) {
		if e.Type == fob.EventRevoked {
			revoked++
		}
	})
	keys := open(fob.Config{Observer: fob.Observers(fob.LogEvents(log), count)})
	defer keys.Close()

	ctx := fob.WithActor(context.Background(), fob.Actor{Name: "support", Address: "10.0.0.7"})
	sure(keys.Revoke(ctx, fob.User("ann").In("acme"), "left the company"))
	fmt.Println(revoked, strings.Contains(out.String(), `reason="left the company"`), strings.Contains(out.String(), "support"))
	// Output:
	// 1 true true
}

// A key of another system goes on working: it is imported by its hash, which is replaced when
// the key is first used.
func ExampleManager_ImportKey() {
	ctx := context.Background()
	keys := open(fob.Config{Imported: &fob.ImportedKeys{}})
	defer keys.Close()

	const theirs = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8" // the SHA-256 that stands in their table
	sure(keys.ImportKey(ctx, fob.KeySpec{Subject: fob.App("old-client")}, fob.ImportedKey{Hash: theirs}))
	cred := sure(keys.Verify(ctx, "password"))
	fmt.Println(cred.Subject(), cred.(*fob.Key).Imported())
	// Output:
	// application old-client true
}

// Nobody issues more than they have: the caller's own credential is the bound.
func ExampleKeySpec_within() {
	ctx, keys := context.Background(), open(fob.Config{})
	defer keys.Close()
	secret, _, _ := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.User("ann").In("acme"), Scopes: fob.Scopes{"orders:*"}, TTL: time.Hour})
	caller := sure(keys.Verify(ctx, secret.Reveal()))

	for _, spec := range []fob.KeySpec{
		{Subject: fob.App("bot").In("acme"), Scopes: fob.Scopes{"orders:read"}},
		{Subject: fob.App("bot").In("acme"), Scopes: fob.Scopes{"users:read"}},
		{Subject: fob.App("bot").In("umbrella"), Scopes: fob.Scopes{"orders:read"}},
	} {
		spec.Within = caller
		_, key, err := keys.IssueKey(ctx, spec)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(key.Scopes(), key.ExpiresAt().Equal(caller.ExpiresAt()))
	}
	// Output:
	// orders:read true
	// fob: insufficient scope: the caller's credential does not grant all of that
	// fob: insufficient scope: the caller is of another account
}

// A program at its start asks whether it can work as it is configured.
func ExampleManager_Check() {
	keys := open(fob.Config{})
	defer keys.Close()
	if err := keys.Check(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Println("ready")
	// Output:
	// ready
}
