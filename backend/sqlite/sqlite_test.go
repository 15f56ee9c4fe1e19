package sqlite_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
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
	store, err := sqlite.Open(file, sqlite.Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	arg, _ := strconv.Atoi(os.Getenv(childArg))
	switch os.Getenv(childDoes) {
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

func open(t testing.TB, file string, opts sqlite.Options) *sqlite.Store {
	t.Helper()
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
		s, err := sqlite.Open(file, sqlite.Options{})
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
