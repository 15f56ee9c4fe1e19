// This is a program as a user of the stores in separate modules writes it. .ci/consumer/run
// compiles it outside this repository. It runs on the store that needs no server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
)

var (
	_ backend.Store = (*postgres.Store)(nil)
	_ backend.Store = (*etcd.Store)(nil)
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
	fmt.Println("consumer: two stores on one file: issued by one, verified by the other, revoked, refused")
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "fob-consumer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var managers [2]*fob.Manager
	for i := range managers {
		store, err := sqlite.Open(filepath.Join(dir, "fob.db"), sqlite.Options{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		if managers[i], err = fob.New(store, fob.Config{}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, managers[i].Close()) }()
	}
	secret, key, err := managers[0].IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42")})
	if err != nil {
		return err
	}
	if _, err := managers[1].Verify(ctx, secret.Reveal()); err != nil {
		return err
	}
	receipt, err := managers[0].Revoke(ctx, key.ID(), "leaked")
	if err != nil {
		return err
	}
	if err := receipt.Wait(ctx); err != nil {
		return err
	}
	if _, err := managers[1].Verify(ctx, secret.Reveal()); !errors.Is(err, fob.ErrRevoked) {
		return fmt.Errorf("a revoked key was answered with: %v", err)
	}
	return nil
}
