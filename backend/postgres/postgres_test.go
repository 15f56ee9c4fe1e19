package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// With childURL set the test binary is a child that writes until it is killed.
const (
	childURL    = "FOB_POSTGRES_URL"
	childSchema = "FOB_POSTGRES_SCHEMA"
	childRound  = "FOB_POSTGRES_ROUND"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		writeUntilKilled(url)
		os.Exit(1)
	}
	await.SideBySide(8)
	code := m.Run()
	if one.server != nil {
		if err := one.server.Close(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

func writeUntilKilled(url string) {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	store, err := postgres.New(ctx, pool, postgres.Options{Schema: os.Getenv(childSchema), StatementTimeout: 10 * time.Minute})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	round, _ := strconv.Atoi(os.Getenv(childRound))
	backendtest.KillWriter(store, os.Stdout, round)
}

// one is the server that all tests share, each with a schema of its own.
var one struct {
	once   sync.Once
	server *pgtest.Server
	err    error
	schema atomic.Int64
}

func server(t testing.TB) *pgtest.Server {
	t.Helper()
	one.once.Do(func() {
		settings := []string{"max_prepared_transactions = 5"}
		if flag.Lookup("test.bench").Value.String() == "" {
			// Not where anything is measured. A server that is killed loses nothing by that,
			// only a machine that loses power would.
			settings = append(settings, "fsync = off")
		}
		one.server, one.err = pgtest.Start(context.Background(), pgtest.Config{Settings: settings})
	})
	if errors.Is(one.err, pgtest.ErrNoServer) {
		t.Skip("everything that needs a server: ", one.err)
	}
	require.NoError(t, one.err)
	return one.server
}

// link is the way from a pool to the server, which can be cut.
type link struct {
	mu    sync.Mutex // guards what is below
	cut   bool
	conns map[net.Conn]bool
	dials int
}

func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dials++
	if l.cut {
		return nil, errors.New("the link is cut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		l.conns[conn] = true
	}
	return conn, err
}

// dialled is how often somebody has tried to connect.
func (l *link) dialled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// sever closes every connection, and lets no new one through until heal.
func (l *link) sever() (heal func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cut = false
	}
}

// place is where a store of the tests lives.
type place struct {
	url    string
	schema string
	pool   *pgxpool.Pool
	link   *link
}

// newPool connects; change may adjust the configuration.
func newPool(t testing.TB, url string, change func(*pgxpool.Config)) (*pgxpool.Pool, *link) {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	config.MaxConns = 8 // each costs the server a process
	l := &link{conns: make(map[net.Conn]bool)}
	config.ConnConfig.DialFunc = l.dial
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool, l
}

// newPlace is an empty schema, migrated.
func newPlace(t testing.TB, url string, change func(*pgxpool.Config)) *place {
	t.Helper()
	p := &place{url: url, schema: fmt.Sprint(`s "`, one.schema.Add(1))} // every statement quotes it
	p.pool, p.link = newPool(t, url, change)
	require.NoError(t, postgres.Migrate(context.Background(), p.pool, postgres.Options{Schema: p.schema}))
	return p
}

// fill writes the schema's names into SQL.
func (p *place) fill(sql string) string { return postgres.Options{Schema: p.schema}.Fill(sql) }

// open opens a store whose calls may take as long as a busy machine makes them, unless
// the options say otherwise.
func (p *place) open(t testing.TB, opts postgres.Options) *postgres.Store {
	t.Helper()
	opts.Schema = p.schema
	brief := opts.StatementTimeout > 0
	if !brief {
		opts.StatementTimeout = 10 * time.Minute
	}
	var s *postgres.Store
	await.Until(t, "a store that opens in so little time", func() bool {
		var err error
		s, err = postgres.New(context.Background(), p.pool, opts)
		if brief && errors.Is(err, backend.ErrUnavailable) {
			return false
		}
		require.NoError(t, err)
		return true
	})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// open is a store in an empty schema.
func open(t testing.TB, opts postgres.Options) (*postgres.Store, *place) {
	t.Helper()
	p := newPlace(t, server(t).URL("postgres"), nil)
	return p.open(t, opts), p
}

// owner is a store with the pool it borrows, which is closed after it: nothing of
// the two may be left.
type owner struct {
	*postgres.Store
	place *place
}

func (o *owner) Close() error {
	err := o.Store.Close()
	o.place.pool.Close()
	return err
}

// contract runs the suite over a server.
func contract(t *testing.T, url string, change func(*pgxpool.Config), opts backendtest.Options) {
	opts.Reopen = func(t *testing.T, s backend.Store) backend.Store {
		require.NoError(t, s.Close())
		p := *s.(*owner).place
		p.pool, p.link = newPool(t, url, change)
		return &owner{p.open(t, postgres.Options{}), &p}
	}
	opts.Cut = func(_ *testing.T, s backend.Store) func() { return s.(*owner).place.link.sever() }
	backendtest.Run(t, func(t *testing.T) backend.Store {
		p := newPlace(t, url, change)
		return &owner{p.open(t, postgres.Options{}), p}
	}, opts)
}

func TestContract(t *testing.T) {
	url := server(t).URL("postgres")
	contract(t, url, nil, backendtest.Options{Kill: func(t *testing.T) {
		p := newPlace(t, url, nil)
		backendtest.KillLoop(t, 5, func(round int) *exec.Cmd {
			cmd := exec.Command(os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), childURL+"="+url, childSchema+"="+p.schema, fmt.Sprint(childRound, "=", round))
			return cmd
		}, func(t *testing.T) backend.Store { return p.open(t, postgres.Options{}) })
	}})
}
