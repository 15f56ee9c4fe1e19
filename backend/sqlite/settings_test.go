package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

// pool opens a database as an application does.
func pool(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func execute(t testing.TB, db *sql.DB, text string, args ...any) {
	t.Helper()
	_, err := db.Exec(text, args...)
	require.NoError(t, err, text)
}

// Whatever the pool says, the store's own connections sync each commit, and the
// pool's own connections stay as they were.
func TestTheStoreSetsUpItsOwnConnections(t *testing.T) {
	for name, pragmas := range map[string]string{
		"nothing set":        "",
		"synchronous NORMAL": "_pragma=synchronous(1)&_pragma=busy_timeout(1234)",
		"query only":         "_pragma=query_only(1)",
		"EXTRA":              "_pragma=synchronous(3)",
		"no checkpoints":     "_pragma=wal_autocheckpoint(0)",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "app.db")
			require.NoError(t, sqlite.Migrate(t.Context(), pool(t, "file:"+file)))
			db := pool(t, "file:"+file+"?"+pragmas)
			var before, after, querying int
			require.NoError(t, db.QueryRow("PRAGMA synchronous").Scan(&before))
			require.NoError(t, db.QueryRow("PRAGMA query_only").Scan(&querying))
			s, err := sqlite.New(t.Context(), db, sqlite.Options{})
			require.NoError(t, err)
			_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
			require.NoError(t, err)
			for _, setting := range []func(string) (string, error){s.WriterPragma, s.ReaderPragma} {
				value, err := setting("synchronous")
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(max(2, before)), value)
			}
			value, err := s.ReaderPragma("query_only")
			require.NoError(t, err)
			require.Equal(t, "1", value)
			require.NoError(t, s.Close())
			require.LessOrEqual(t, db.Stats().OpenConnections, 1, "the store's connections are closed")
			for range 3 {
				c, err := db.Conn(t.Context())
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Close()) }()
				var still int
				require.NoError(t, c.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&after))
				require.NoError(t, c.QueryRowContext(t.Context(), "PRAGMA query_only").Scan(&still))
				require.Equal(t, []int{before, querying}, []int{after, still})
			}
		})
	}
}

func TestNewRefusesWhatIsUnfit(t *testing.T) {
	for name, c := range map[string]struct {
		dsn     string // after the file's name
		prepare func(t *testing.T, db *sql.DB)
		opts    sqlite.Options
		want    error
		says    string
	}{
		"not migrated": {
			prepare: func(t *testing.T, db *sql.DB) { execute(t, db, "PRAGMA journal_mode = WAL") },
			want:    sqlite.ErrNotMigrated, says: "call Migrate",
		},
		"another application's": {
			prepare: func(t *testing.T, db *sql.DB) {
				execute(t, db, "PRAGMA journal_mode = WAL")
				execute(t, db, "CREATE TABLE theirs (a)")
			},
			want: sqlite.ErrNotMigrated, says: "call Migrate",
		},
		"newer": {
			prepare: func(t *testing.T, db *sql.DB) {
				require.NoError(t, sqlite.Migrate(t.Context(), db))
				execute(t, db, "UPDATE fob_meta SET v = v + 1")
			},
			want: sqlite.ErrNewerSchema, says: "version",
		},
		"no write-ahead log": {
			prepare: func(t *testing.T, db *sql.DB) {
				require.NoError(t, sqlite.Migrate(t.Context(), db))
				execute(t, db, "PRAGMA journal_mode = DELETE")
			},
			want: sqlite.ErrSettings, says: "journal_mode is delete",
		},
		"connections that never sync": {
			dsn:     "?_pragma=synchronous(0)",
			prepare: func(t *testing.T, db *sql.DB) { require.NoError(t, sqlite.Migrate(t.Context(), db)) },
			want:    sqlite.ErrSettings, says: "synchronous is OFF",
		},
		"exclusive locking": {
			dsn:     "?_pragma=locking_mode(EXCLUSIVE)",
			prepare: func(t *testing.T, db *sql.DB) { require.NoError(t, sqlite.Migrate(t.Context(), db)) },
			want:    sqlite.ErrSettings, says: "locking_mode is exclusive",
		},
		"connections that share a cache": {
			dsn:     "?cache=shared&_pragma=synchronous(1)",
			prepare: func(t *testing.T, db *sql.DB) { require.NoError(t, sqlite.Migrate(t.Context(), db)) },
			want:    sqlite.ErrSettings, says: "cache=shared",
		},
		"too small a pool": {
			prepare: func(t *testing.T, db *sql.DB) {
				require.NoError(t, sqlite.Migrate(t.Context(), db))
				db.SetMaxOpenConns(3)
			},
			want: sqlite.ErrSettings, says: "SetMaxOpenConns",
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := pool(t, "file:"+filepath.Join(t.TempDir(), "app.db")+c.dsn)
			c.prepare(t, db)
			s, err := sqlite.New(t.Context(), db, c.opts)
			require.Nil(t, s)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			require.Zero(t, db.Stats().InUse)
		})
	}
	t.Run("in memory", func(t *testing.T) {
		_, err := sqlite.New(t.Context(), pool(t, ":memory:"), sqlite.Options{})
		require.ErrorIs(t, err, sqlite.ErrSettings)
		require.ErrorContains(t, err, "backend/memory")
	})
	t.Run("options", func(t *testing.T) {
		_, err := sqlite.Open("x", sqlite.Options{BusyTimeout: -1, PollEvery: time.Second, Readers: -1})
		for _, field := range []string{"BusyTimeout", "PollEvery", "Readers"} {
			require.ErrorContains(t, err, field)
		}
		_, err = os.Stat("x")
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestMigrateTwiceAndOfANewerDatabase(t *testing.T) {
	db := pool(t, "file:"+filepath.Join(t.TempDir(), "app.db"))
	execute(t, db, "CREATE TABLE theirs (a)")
	for range 2 {
		require.NoError(t, sqlite.Migrate(t.Context(), db))
	}
	var app int
	require.NoError(t, db.QueryRow("PRAGMA application_id").Scan(&app))
	require.Zero(t, app, "the file is the application's, and so is this mark")
	execute(t, db, "UPDATE fob_meta SET v = 99")
	require.ErrorIs(t, sqlite.Migrate(t.Context(), db), sqlite.ErrNewerSchema)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, sqlite.Migrate(ctx, db), context.Canceled)
}

func TestOpenTakesAnyFileName(t *testing.T) {
	for _, name := range []string{"plain.db", "a b", "a?b.db", "a#b", "a%41.db", "a&mode=ro", "ü☃.db", "'quoted'", `back\slash`, "?vfs=none", "%00", "a=b;c", "+"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, name)
			s := open(t, file, sqlite.Options{})
			_, err := s.Put(t.Context(), record(1), backend.IfAbsent())
			require.NoError(t, err)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 3, "the database, its log and its index")
			for _, e := range entries {
				require.True(t, strings.HasPrefix(e.Name(), name), e.Name())
				info, err := e.Info()
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
			}
			require.NoError(t, s.Close())
			s = open(t, file, sqlite.Options{})
			_, err = s.Get(t.Context(), record(1).ID)
			require.NoError(t, err)
		})
	}
	t.Run("relative", func(t *testing.T) {
		t.Chdir(t.TempDir())
		s := open(t, "fob.db", sqlite.Options{})
		t.Chdir(t.TempDir()) // later connections open the same file
		_, err := s.Get(t.Context(), record(1).ID)
		require.ErrorIs(t, err, backend.ErrNotFound)
	})
	t.Run("symbolic link", func(t *testing.T) {
		dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
		file := filepath.Join(dir, "fob.db")
		require.NoError(t, os.Symlink(file, link))
		_, err := sqlite.Open(link, sqlite.Options{})
		require.ErrorIs(t, err, backend.ErrUnavailable, "to nowhere")
		s := open(t, file, sqlite.Options{})
		through := open(t, link, sqlite.Options{})
		_, err = through.Put(t.Context(), record(1), backend.IfAbsent())
		require.NoError(t, err)
		_, err = s.Get(t.Context(), record(1).ID)
		require.NoError(t, err)
		_, err = os.Stat(file + "-wal")
		require.NoError(t, err)
	})
}

func TestOpenRefuses(t *testing.T) {
	for _, path := range []string{"", ":memory:", "file:fob.db", "file::memory:?cache=shared", "a\x00b"} {
		_, err := sqlite.Open(path, sqlite.Options{})
		require.ErrorIs(t, err, sqlite.ErrSettings, "%q", path)
	}
	dir := t.TempDir()
	_, err := sqlite.Open(filepath.Join(dir, "none", "fob.db"), sqlite.Options{})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = sqlite.Open(dir, sqlite.Options{})
	require.Error(t, err)

	theirs := filepath.Join(dir, "theirs.db")
	db := pool(t, "file:"+theirs)
	execute(t, db, "CREATE TABLE theirs (a)")
	_, err = sqlite.Open(theirs, sqlite.Options{})
	require.ErrorIs(t, err, sqlite.ErrSettings)
	require.ErrorContains(t, err, "another application's")
	var tables int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables))
	require.Equal(t, 1, tables)

	text := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(text, bytes.Repeat([]byte("no database. "), 1000), 0o644))
	var logged bytes.Buffer
	_, err = sqlite.Open(text, sqlite.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	require.ErrorContains(t, err, "not a database")
	require.Contains(t, logged.String(), "0600")
}

// Many open a file at the same time that is not there yet: each sees it before it is
// made or after that, and takes it for nobody else's.
func TestOpenTogether(t *testing.T) {
	for range 8 {
		file := filepath.Join(t.TempDir(), "fob.db")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				s, err := sqlite.Open(file, sqlite.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Get(t.Context(), record(1).ID); err == nil {
					t.Error("a record that nobody wrote")
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		db := pool(t, "file:"+file)
		var app int
		require.NoError(t, db.QueryRow("PRAGMA application_id").Scan(&app))
		require.Equal(t, 0x666f6231, app)
		var first int
		require.NoError(t, db.QueryRow("SELECT count(*) FROM fob_change").Scan(&first))
		require.Equal(t, 1, first)
	}
}

// Each list is a range of its index, with statistics and without.
func TestPlans(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{})
	db := pool(t, "file:"+file)
	check := func(t *testing.T) {
		for index, text := range sqlite.Statements() {
			args := []any{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
			rows, err := db.Query("EXPLAIN QUERY PLAN "+text, args[:strings.Count(text, "$")]...)
			require.NoError(t, err, text)
			var plan []string
			for rows.Next() {
				var id, parent, unused int
				var detail string
				require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
				plan = append(plan, detail)
			}
			require.NoError(t, rows.Err())
			plan = slices.DeleteFunc(plan, func(step string) bool { // those that make a list of what is asked for
				return strings.Contains(step, " asked") || strings.HasSuffix(step, " ROW") || strings.HasSuffix(step, "SETUP") || strings.HasSuffix(step, "STEP")
			})
			require.Len(t, plan, 1, "one search and no sorting: %s %v", text, plan)
			require.Contains(t, plan[0], "SEARCH ", text)
			require.Contains(t, plan[0], strings.TrimSpace(index), text)
		}
	}
	t.Run("empty", check)
	for i := range uint64(300) {
		r := record(i)
		r.Kind = backend.Kind(1 + i%2)
		r.Owner = "the same"
		if i%3 == 0 {
			r.Parent, r.Expires, r.PurgeAt = record(0).ID, 5, int64(1+i)
		}
		_, err := s.Put(t.Context(), r, backend.IfAbsent())
		require.NoError(t, err)
	}
	execute(t, db, "ANALYZE")
	t.Run("analyzed", check)
	require.NoError(t, s.Maintain(t.Context()))
	t.Run("maintained", check)
	info, err := os.Stat(file + "-wal")
	require.NoError(t, err)
	require.Zero(t, info.Size(), "the log is moved into the database")
}
