// This is a program as a user writes it. .ci/consumer/run compiles it outside this
// repository.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
	fmt.Println("consumer: issued, verified, revoked, refused")
}

func run(ctx context.Context) (err error) {
	store := memory.New()
	defer func() { err = errors.Join(err, store.Close()) }()
	m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()

	secret, key, err := m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return err
	}
	cred, err := m.Verify(ctx, secret.Reveal())
	if err != nil {
		return err
	}
	if cred.ID() != key.ID() || cred.Subject() != fob.App("app-42") || !cred.Allows("orders:read") || cred.Allows("orders:write") {
		return errors.New("verified as something other than what was issued")
	}
	if _, err := m.Revoke(ctx, key.ID(), fob.RevokeReason("leaked")); err != nil {
		return err
	}
	if _, err := m.Verify(ctx, secret.Reveal()); !errors.Is(err, fob.ErrRevoked) || !errors.Is(err, fob.ErrRejected) {
		return fmt.Errorf("a revoked key was answered with: %v", err)
	}
	return nil
}
