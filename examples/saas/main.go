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
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
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

// settings are the flags.
type settings struct {
	store, data, addr string
	init              bool
}

func main() {
	var s settings
	flag.StringVar(&s.data, "data", "saas-data", "the folder of the users and the secret")
	flag.StringVar(&s.store, "store", "", "badger:DIR or postgres:URL (default a Badger directory in -data)")
	flag.StringVar(&s.addr, "addr", "127.0.0.1:8080", "the address to listen on")
	flag.BoolVar(&s.init, "init", false, "make the tables, issue a key to the operator, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s, os.Stdout, slog.Default())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "saas:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, or with -init does that.
func run(ctx context.Context, s settings, out io.Writer, log *slog.Logger) (err error) {
	app, err := open(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, app.close()) }()
	if s.init {
		secret, _, err := app.keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("operator"), Scopes: fob.Scopes{scopeOperator}})
		fmt.Fprintln(out, secret.Reveal())
		return err
	}
	// A wrong secret, or a clock that is wrong, is found now and not at the first request.
	if err := app.keys.Check(ctx); err != nil {
		return err
	}
	handler, err := app.routes()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "serving on http://%s\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(ending)
	})
	err = server.Serve(listener)
	if stop() {
		return err // it ended by itself
	}
	return <-stopped
}

// app is the service: its users, and the Manager of their credentials.
type app struct {
	keys  *fob.Manager
	users *users
	log   *slog.Logger
	close func() error
}

// open opens the store, the users and the Manager.
func open(ctx context.Context, s settings, log *slog.Logger) (*app, error) {
	seal, err := secretIn(filepath.Join(s.data, "seal.key"))
	if err != nil {
		return nil, err
	}
	people, err := openUsers(filepath.Join(s.data, "users.json"))
	if err != nil {
		return nil, err
	}
	store, closeStore, err := openStore(ctx, s)
	if err != nil {
		return nil, err
	}
	a := &app{users: people, log: log}
	a.keys, err = fob.New(store, fob.Config{
		Prefix:   "acme_live",
		Roles:    roles,
		Observer: fob.LogEvents(log), // who did what
		Tokens:   &fob.TokenConfig{SealKey: seal, TTL: 5 * time.Minute, OnRefresh: a.lookAgain},
	})
	if err != nil {
		return nil, errors.Join(err, closeStore())
	}
	a.close = func() error { return errors.Join(a.keys.Close(), closeStore()) }
	return a, nil
}

// openStore opens the store that a flag names.
func openStore(ctx context.Context, s settings) (backend.Store, func() error, error) {
	kind, where, _ := strings.Cut(s.store, ":")
	switch kind {
	case "":
		kind, where = "badger", filepath.Join(s.data, "store")
		fallthrough
	case "badger":
		store, err := badger.Open(where, badger.Options{})
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	case "postgres":
		pool, err := pgxpool.New(ctx, where)
		if err != nil {
			return nil, nil, err
		}
		if s.init { // by a role that may make tables; the service itself needs no such right
			err = postgres.Migrate(ctx, pool, postgres.Options{})
		}
		var store *postgres.Store
		if err == nil {
			store, err = postgres.New(ctx, pool, postgres.Options{})
		}
		if err != nil {
			pool.Close()
			return nil, nil, err
		}
		return store, func() error { defer pool.Close(); return store.Close() }, nil
	}
	return nil, nil, fmt.Errorf("-store %q: neither badger:DIR nor postgres:URL", kind)
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
