//go:build !race

package sqlite_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

// withPool closes the pool after the store, as an application does.
type withPool struct {
	*sqlite.Store
	db *sql.DB
}

func (w *withPool) Close() error { return errors.Join(w.Store.Close(), w.db.Close()) }

// quickDir is a folder in memory where there is one, for what another test does on the
// disk.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "fob-sqlite-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// The contract again on a pool that an application has opened, in a database with
// tables of its own. Not under the race detector, where TestContract takes long
// enough.
func TestContractOfABorrowedPool(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	borrow := func(t *testing.T) backend.Store {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(quickDir(t), "app.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(1)")
		require.NoError(t, err)
		execute(t, db, "CREATE TABLE theirs (a)")
		require.NoError(t, sqlite.Migrate(t.Context(), db))
		s, err := sqlite.New(t.Context(), db, sqlite.Options{Readers: 2, BusyTimeout: patience})
		require.NoError(t, err)
		return &withPool{s, db}
	}
	backendtest.Run(t, borrow, backendtest.Options{})
}
