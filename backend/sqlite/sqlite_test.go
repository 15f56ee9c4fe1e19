package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
	engine "modernc.org/sqlite"
)

// With childFile set the test binary is a child on that file, and childDoes says
// what it does there.
const (
	childFile = "FOB_SQLITE_FILE"
	childDoes = "FOB_SQLITE_DOES"
	childArg  = "FOB_SQLITE_ARG"
)

func TestMain(m *testing.M) {
	file := os.Getenv(childFile)
	if file == "" {
		os.Exit(m.Run())
	}
	does := os.Getenv(childDoes)
	store, err := sqlite.Open(file, sqlite.Options{InsecureGroupAccess: does == "open for the group", BusyTimeout: patience})
	if strings.HasPrefix(does, "open") {
		fmt.Print(err)
		os.Exit(0)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	arg, _ := strconv.Atoi(os.Getenv(childArg))
	switch does {
	case "kill":
		backendtest.KillWriter(store, os.Stdout, arg)
	case "power":
		powerWriter(store, uint64(arg))
	case "contend":
		contend(store)
		os.Exit(0)
	case "flood":
		flood(store, arg)
	case "tell":
		tell(store, arg)
		os.Exit(0)
	}
	os.Exit(1)
}

func child(file, does string, arg int) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childFile+"="+file, childDoes+"="+does, fmt.Sprint(childArg, "=", arg))
	return cmd
}

// patience is for calls that wait for other processes on a busy machine.
const patience = 10 * time.Minute

// open opens a store whose calls wait for a lock as long as they must, unless the
// options say otherwise.
func open(t testing.TB, file string, opts sqlite.Options) *sqlite.Store {
	t.Helper()
	if opts.BusyTimeout == 0 {
		opts.BusyTimeout = patience
	}
	s, err := sqlite.Open(file, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func record(n uint64) backend.Record {
	r := backend.Record{Kind: 1, Owner: fmt.Sprintf("app-%d", n%100), Created: 1_700_000_000_000 + int64(n), Body: make([]byte, 200)}
	binary.BigEndian.PutUint64(r.ID[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(r.ID[8:], n+1)
	return r
}

func TestContract(t *testing.T) {
	var mu sync.Mutex
	files := map[backend.Store]string{}
	at := func(t *testing.T, file string) backend.Store {
		s, err := sqlite.Open(file, sqlite.Options{BusyTimeout: patience})
		require.NoError(t, err)
		mu.Lock()
		defer mu.Unlock()
		files[s] = file
		return s
	}
	backendtest.Run(t, func(t *testing.T) backend.Store { return at(t, filepath.Join(t.TempDir(), "fob.db")) }, backendtest.Options{
		Reopen: func(t *testing.T, s backend.Store) backend.Store {
			require.NoError(t, s.Close())
			mu.Lock()
			file := files[s]
			mu.Unlock()
			return at(t, file)
		},
		Scarce: func(_ *testing.T, s backend.Store) {
			s.(*sqlite.Store).SetFree(func() uint64 { return 1 << 20 })
		},
		Batches: func(_ *testing.T, s backend.Store) backendtest.Batches {
			q := s.(*sqlite.Store)
			return backendtest.Batches{
				OnBatch:   func(f func()) { q.OnBatch(func(int) { f() }) },
				OnApplied: q.OnApplied, Waiting: q.Waiting,
			}
		},
		Kill: func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fob.db")
			rounds := 8
			if slow || testing.Short() {
				rounds = 2
			}
			backendtest.KillLoop(t, rounds, func(round int) *exec.Cmd { return child(file, "kill", round) },
				func(t *testing.T) backend.Store { return open(t, file, sqlite.Options{}) })
		},
	})
}

// dialled counts the connections that are opened.
type dialled struct {
	driver.Connector
	n atomic.Int64
}

func (c *dialled) Connect(ctx context.Context) (driver.Conn, error) {
	c.n.Add(1)
	return c.Connector.Connect(ctx)
}

// An answer that is none, or is not waited for, costs no connection: most of what
// strangers present is not found.
func TestWhatIsNotFoundCostsNoConnection(t *testing.T) {
	connector, err := engine.NewConnector("file:" + filepath.Join(t.TempDir(), "app.db"))
	require.NoError(t, err)
	opened := &dialled{Connector: connector}
	db := sql.OpenDB(opened)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, sqlite.Migrate(t.Context(), db))
	s, err := sqlite.New(t.Context(), db, sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	create(t, s, 0, 3)
	before := opened.n.Load()
	for i := range uint64(100) {
		_, err = s.Get(t.Context(), record(1000+i).ID)
		require.ErrorIs(t, err, backend.ErrNotFound)
		_, err = s.Usage(t.Context(), []backend.ID{record(1000 + i).ID})
		require.NoError(t, err)
		_, err = s.List(&ending{Context: t.Context()}, backend.Query{Kind: 1})
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Equal(t, before, opened.n.Load())
	create(t, s, 3, 4)
}

// ending is a context that ends when it is asked a second time.
type ending struct {
	context.Context
	asked int
}

func (c *ending) Err() error {
	if c.asked++; c.asked > 1 {
		return context.Canceled
	}
	return nil
}
