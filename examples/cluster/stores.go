package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/jackc/pgx/v5/pgxpool"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// storeAt says where the store is. Each child process gets it.
type storeAt struct {
	SQLite   string        // a file
	Postgres string        // a connection string
	Etcd     string        // endpoints
	Name     string        // of a schema or a prefix
	Wait     time.Duration // how long a process waits for the store
}

func (s storeAt) String() string {
	switch {
	case s.Postgres != "":
		return "PostgreSQL, schema " + s.Name
	case s.Etcd != "":
		return "etcd, prefix " + s.Name + "/"
	}
	return "a SQLite file"
}

// prepare does what a deployment does once: it creates the tables.
func (s *storeAt) prepare(ctx context.Context) error {
	s.Name = "fob_cluster_" + strings.ToLower(rand.Text()[:8])
	if s.Postgres == "" {
		return nil
	}
	pool, err := pgxpool.New(ctx, s.Postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	return postgres.Migrate(ctx, pool, postgres.Options{Schema: s.Name})
}

// open opens the store, as each process does at its start.
func (s storeAt) open(ctx context.Context) (backend.Store, func() error, error) {
	switch {
	case s.Postgres != "":
		pool, err := pgxpool.New(ctx, s.Postgres)
		if err != nil {
			return nil, nil, err
		}
		store, err := postgres.New(ctx, pool, postgres.Options{Schema: s.Name})
		if err != nil {
			pool.Close()
			return nil, nil, err
		}
		return store, func() error { err := store.Close(); pool.Close(); return err }, nil
	case s.Etcd != "":
		client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(s.Etcd, ","), DialTimeout: 5 * time.Second})
		if err != nil {
			return nil, nil, err
		}
		store, err := etcd.New(client, etcd.Options{Prefix: s.Name + "/"})
		if err != nil {
			return nil, nil, errors.Join(err, client.Close())
		}
		return store, func() error { return errors.Join(store.Close(), client.Close()) }, nil
	}
	store, err := sqlite.Open(s.SQLite, sqlite.Options{})
	if err != nil {
		return nil, nil, err
	}
	return store, store.Close, nil
}
