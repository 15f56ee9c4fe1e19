package fleettest_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/fobkit/fob/internal/link"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// storeAt is where a store is, as a process is told.
type storeAt struct {
	Kind      string
	Path      string   // sqlite
	URL       string   // postgres
	Schema    string   // postgres
	Conns     int32    // postgres: how many connections the pool may have; 6 if it is zero
	Endpoints []string // etcd
	Prefix    string   // etcd
}

// open opens the store.
func (s storeAt) open(ctx context.Context) (backend.Store, func(), error) {
	switch s.Kind {
	case "sqlite":
		store, err := sqlite.Open(s.Path, sqlite.Options{})
		if err != nil {
			return nil, nil, err
		}
		return store, func() { _ = store.Close() }, nil
	case "postgres":
		cfg, err := pgxpool.ParseConfig(s.URL)
		if err != nil {
			return nil, nil, err
		}
		cfg.MaxConns = cmp.Or(s.Conns, 6)
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
		postgres.Configure(cfg)
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		opts := postgres.Options{Schema: s.Schema}
		store, err := postgres.New(ctx, pool, opts)
		if err != nil {
			pool.Close()
			return nil, nil, err
		}
		return store, func() { _ = store.Close(); pool.Close() }, nil
	case "etcd":
		client, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints, DialTimeout: 2 * time.Second})
		if err != nil {
			return nil, nil, err
		}
		store, err := etcd.New(client, etcd.Options{Prefix: s.Prefix})
		if err != nil {
			_ = client.Close()
			return nil, nil, err
		}
		return store, func() { _ = store.Close(); _ = client.Close() }, nil
	}
	return nil, nil, fmt.Errorf("no store of kind %q", s.Kind)
}

// engine is a server, or a file, that stores live in.
type engine interface {
	// fresh makes an empty store.
	fresh(t testing.TB) storeAt
	// through is the same store behind a connection of its own that can be broken; nil
	// where there is no connection to break.
	through(t testing.TB, s storeAt) (storeAt, *link.Link)
}

// engines starts each server once.
var engines = &started{}

type started struct {
	mu       sync.Mutex
	postgres *pgtest.Server
	etcd     *etcdtest.Cluster
}

func (e *started) get(t testing.TB, kind string) engine {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch kind {
	case "postgres":
		if e.postgres == nil {
			e.postgres = startPostgres(t)
		}
		return onPostgres{e.postgres}
	case "etcd":
		if e.etcd == nil {
			cluster, err := etcdtest.Start(1, etcdtest.Options{NoSync: !measuring()})
			require.NoError(t, err)
			e.etcd = cluster
		}
		return onEtcd{e.etcd}
	}
	return onFile{}
}

// measuring reports whether benchmarks run. Only then do servers wait for the disk: one
// that is killed loses nothing without that, only a machine that loses power would.
func measuring() bool { return flag.Lookup("test.bench").Value.String() != "" }

func startPostgres(t testing.TB) *pgtest.Server {
	t.Helper()
	settings := []string{"max_connections = 200"}
	if !measuring() {
		settings = append(settings, "fsync = off")
	}
	server, err := pgtest.Start(context.Background(), pgtest.Config{Settings: settings})
	if errors.Is(err, pgtest.ErrNoServer) {
		t.Skipf("not on PostgreSQL: %v", err)
	}
	require.NoError(t, err)
	return server
}

func (e *started) close() {
	if e.postgres != nil {
		_ = e.postgres.Close()
	}
	if e.etcd != nil {
		_ = e.etcd.Close()
	}
}

func name() string { return "fleet_" + strings.ToLower(rand.Text()[:12]) }

type onFile struct{}

func (onFile) fresh(t testing.TB) storeAt {
	return storeAt{Kind: "sqlite", Path: filepath.Join(t.TempDir(), "fob.db")}
}

func (onFile) through(_ testing.TB, s storeAt) (storeAt, *link.Link) { return s, nil }

type onPostgres struct{ server *pgtest.Server }

func (e onPostgres) fresh(t testing.TB) storeAt {
	t.Helper()
	s := storeAt{Kind: "postgres", URL: e.server.URL("postgres"), Schema: name()}
	pool, err := pgxpool.New(t.Context(), s.URL)
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, postgres.Migrate(t.Context(), pool, postgres.Options{Schema: s.Schema}))
	return s
}

func (e onPostgres) through(t testing.TB, s storeAt) (storeAt, *link.Link) {
	t.Helper()
	l := connect(t, e.server.Address())
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	u.Host = l.Addr()
	s.URL = u.String()
	return s, l
}

type onEtcd struct{ cluster *etcdtest.Cluster }

func (e onEtcd) fresh(testing.TB) storeAt {
	return storeAt{Kind: "etcd", Endpoints: []string{e.cluster.Addr(0)}, Prefix: name() + "/"}
}

func (e onEtcd) through(t testing.TB, s storeAt) (storeAt, *link.Link) {
	t.Helper()
	l := connect(t, s.Endpoints[0])
	s.Endpoints = []string{l.Addr()}
	return s, l
}

func connect(t testing.TB, upstream string) *link.Link {
	t.Helper()
	l, err := link.Start(upstream)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// faults are the ways to break a link. All are mended by Mend.
var faults = map[string]func(l *link.Link){
	// Connections end, and none can be made.
	"cut": (*link.Link).Cut,
	// Everything comes, and late.
	"slow": func(l *link.Link) {
		late := link.Way{Delay: 400 * time.Millisecond, Jitter: 300 * time.Millisecond}
		l.Set(late, late)
	},
	// What is asked arrives at once and the answer is old when it comes: older than the
	// least patient process may be told of as news.
	"old": func(l *link.Link) { l.Set(link.Way{}, link.Way{Delay: 800 * time.Millisecond}) },
	// Connections stay and can be made, and nothing comes any more.
	"half open": (*link.Link).Silence,
}
