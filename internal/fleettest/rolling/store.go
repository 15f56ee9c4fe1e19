package rolling

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/jackc/pgx/v5/pgxpool"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Store is where a store is.
type Store struct {
	Kind string // "badger", "sqlite", "postgres" or "etcd"
	At   string // the directory, the file, the URL, or the endpoint
	Name string // the schema of PostgreSQL, or the prefix of etcd
}

// Args returns the arguments that tell a program of the store.
func (s Store) Args() []string { return []string{"-store", s.Kind, "-at", s.At, "-name", s.Name} }

// parse is the reverse of Args.
func parse(args []string) (s Store, err error) {
	flags := flag.NewFlagSet("program", flag.ContinueOnError)
	flags.StringVar(&s.Kind, "store", "", "the kind of store: badger, sqlite, postgres or etcd")
	flags.StringVar(&s.At, "at", "", "its directory, its file, its URL, or its endpoint")
	flags.StringVar(&s.Name, "name", "", "its schema, or its prefix")
	return s, flags.Parse(args)
}

// open opens the store, and makes or migrates its tables first, as a program does that is
// deployed without another step.
func (s Store) open(ctx context.Context) (backend.Store, func(), error) {
	switch s.Kind {
	case "badger":
		store, err := badger.Open(s.At, badger.Options{})
		if err != nil {
			return nil, nil, err
		}
		return store, func() { _ = store.Close() }, nil
	case "sqlite":
		store, err := sqlite.Open(s.At, sqlite.Options{})
		if err != nil {
			return nil, nil, err
		}
		return store, func() { _ = store.Close() }, nil
	case "postgres":
		return s.openPostgres(ctx)
	case "etcd":
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.At}, DialTimeout: 2 * time.Second})
		if err != nil {
			return nil, nil, err
		}
		store, err := etcd.New(client, etcd.Options{Prefix: s.Name})
		if err != nil {
			_ = client.Close()
			return nil, nil, err
		}
		return store, func() { _ = store.Close(); _ = client.Close() }, nil
	}
	return nil, nil, fmt.Errorf("no store of kind %q", s.Kind)
}

func (s Store) openPostgres(ctx context.Context) (backend.Store, func(), error) {
	cfg, err := pgxpool.ParseConfig(s.At)
	if err != nil {
		return nil, nil, err
	}
	cfg.MaxConns = 6
	postgres.Configure(cfg)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	opts := postgres.Options{Schema: s.Name}
	if err := postgres.Migrate(ctx, pool, opts); err != nil {
		pool.Close()
		return nil, nil, err
	}
	store, err := postgres.New(ctx, pool, opts)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return store, func() { _ = store.Close(); pool.Close() }, nil
}
