// Command saas is a small service with tenants, built on fob: users log in, make keys for
// themselves and for service accounts, and see the keys of their tenant; the operator
// suspends a tenant, lets it in again, and revokes everything it has.
//
//	go run ./examples/saas -init     # once: makes the tables, and prints the operator's key
//	go run ./examples/saas
//
// The store is a Badger directory, or a PostgreSQL database with -store postgres:URL.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5/pgxpool"
)

// app is the service: its flags, its users, and the Manager of their credentials.
type app struct {
	data, store, addr string
	init              bool
	users             *users
	keys              *fob.Manager
}

func main() {
	a := &app{}
	flag.StringVar(&a.data, "data", "saas-data", "the folder of the users and the secret")
	flag.StringVar(&a.store, "store", "", "badger:DIR or postgres:URL (default a Badger directory in -data)")
	flag.StringVar(&a.addr, "addr", "127.0.0.1:8080", "the address to listen on")
	flag.BoolVar(&a.init, "init", false, "make the tables, issue a key to the operator, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := a.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "saas:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, or does what -init asks for.
func (a *app) run(ctx context.Context) (err error) {
	seal, err := secretIn(filepath.Join(a.data, "seal.key"))
	if err != nil {
		return err
	}
	if a.users, err = openUsers(filepath.Join(a.data, "users.json")); err != nil {
		return err
	}
	store, closeStore, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	a.keys, err = fob.New(store, fob.Config{
		Prefix:   "acme_live",
		Roles:    roles,
		Observer: fob.LogEvents(slog.Default()), // who did what
		Tokens:   &fob.TokenConfig{SealKey: seal, TTL: 5 * time.Minute, OnRefresh: a.lookAgain},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.keys.Close()) }()
	if a.init {
		secret, _, err := a.keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("operator"), Scopes: fob.Scopes{scopeOperator}})
		fmt.Println(secret.Reveal())
		return err
	}
	// A wrong secret, or a clock that is wrong, is found now and not at the first request.
	if err := a.keys.Check(ctx); err != nil {
		return err
	}
	routes, err := a.routes()
	if err != nil {
		return err
	}
	return a.serve(ctx, routes)
}

// serve serves until ctx ends, and then finishes what it has begun.
func (a *app) serve(ctx context.Context, routes http.Handler) error {
	listener, err := net.Listen("tcp", a.addr)
	if err != nil {
		return err
	}
	fmt.Printf("serving on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	finished := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		finished <- server.Shutdown(ending)
	})
	if err := server.Serve(listener); stop() {
		return err // it ended by itself
	}
	return <-finished
}

// openStore opens the store that a flag names.
func (a *app) openStore(ctx context.Context) (backend.Store, func() error, error) {
	if url, ok := strings.CutPrefix(a.store, "postgres:"); ok {
		pool, err := pgxpool.New(ctx, url)
		if err == nil && a.init { // by a role that may make tables; the service needs no such right
			err = postgres.Migrate(ctx, pool, postgres.Options{})
		}
		if err != nil {
			return nil, nil, err
		}
		store, err := postgres.New(ctx, pool, postgres.Options{})
		return store, func() error { defer pool.Close(); return store.Close() }, err
	}
	dir, ok := strings.CutPrefix(cmp.Or(a.store, "badger:"+filepath.Join(a.data, "store")), "badger:")
	if !ok {
		return nil, nil, errors.New("-store is neither badger:DIR nor postgres:URL")
	}
	store, err := badger.Open(dir, badger.Options{})
	return store, store.Close, err
}

// secretIn returns the secret in a file, and makes it at the first start. A real service has
// it where its other secrets are, and never in the database whose tokens it seals.
func secretIn(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never returns an error
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, key, 0o600))
	}
	return key, err
}
