package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	engine "modernc.org/sqlite"
)

// Store is a store in a database file. Make one with Open or New. It is safe for
// concurrent use, and so are several Stores on one file, in one process or in
// several. It runs one goroutine of its own, which Close ends.
type Store struct {
	opts  Options
	db    *sql.DB
	owned bool // Open made db, and Close closes it

	queue chan *op      // to the writer
	stop  chan struct{} // closed by Close
	done  sync.WaitGroup
	life  context.Context // ends when stop is closed, for what takes a context
	end   context.CancelFunc

	mu     sync.RWMutex // held for reading by every call; by Close for writing
	closed bool

	readers readers

	watchMu  sync.Mutex // guards watching
	watching map[*conn]struct{}

	newsMu sync.Mutex // guards news
	news   chan struct{}

	commits, writes atomic.Uint64
	hooks           hooks
}

// hooks are for tests.
type hooks struct {
	commitError func() error         // in place of a commit's own answer
	batched     func(operations int) // before a batch is evaluated
	committing  func()               // after it, before it is committed
	looked      func()               // after a Watch has read the changes
	keep        uint64               // in place of keepChanges
	batch       int                  // in place of maxChanges
}

var (
	_ backend.Store         = (*Store)(nil)
	_ backend.Watcher       = (*Store)(nil)
	_ backend.Lister        = (*Store)(nil)
	_ backend.UsageRecorder = (*Store)(nil)
	_ backend.Purger        = (*Store)(nil)
	_ backend.Maintainer    = (*Store)(nil)
)

// Open opens the database file at path, which is made with mode 0600 if it is not
// there, and migrates it (see Migrate). The file is the store's alone: one that
// holds something else is refused with ErrSettings. path is a file name, in which
// no character is special; it is neither a URI nor ":memory:".
func Open(path string, opts Options) (*Store, error) {
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	dsn, err := prepareFile(path, opts)
	if err != nil {
		return nil, err
	}
	connector, err := engine.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlite: open: %w", err)
	}
	db := sql.OpenDB(connector)
	ctx := context.Background()
	err = migrate(ctx, db, true)
	if err == nil {
		var s *Store
		if s, err = start(ctx, db, opts, true); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), db.Close())
}

// creating is held while a file is open by other means than SQLite.
var creating sync.Mutex

// prepareFile makes the file, so that nobody else can read it, and returns how the
// driver names it.
func prepareFile(path string, opts Options) (dsn string, err error) {
	switch {
	case path == "" || strings.HasPrefix(path, ":memory:"):
		return "", fmt.Errorf("%w: a database in memory has no file; use backend/memory for that", ErrSettings)
	case strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("%w: Open takes a file name, not a URI; for a connection string, use sql.Open, Migrate and New", ErrSettings)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%w: a file name with a NUL in it", ErrSettings)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("sqlite: open: %w", err)
	}
	// With O_EXCL a file that is there is not opened: closing it again would drop the
	// locks that another Store in this process has on it (POSIX, fcntl). Nor may one have
	// locks on a new file before that is closed here.
	creating.Lock()
	defer creating.Unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		err = f.Close()
	case errors.Is(err, os.ErrExist):
		var info os.FileInfo
		if info, err = os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			opts.Logger.Warn("sqlite: the database file can be read by others; make it 0600", "mode", info.Mode().String())
		}
	}
	if err != nil {
		return "", fmt.Errorf("sqlite: open: %w: %w", backend.ErrUnavailable, err)
	}
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") { // a drive letter
		slashed = "/" + slashed
	}
	return (&url.URL{Scheme: "file", Path: slashed}).String(), nil
}

// New makes a store of a database that the caller has opened, with the driver
// modernc.org/sqlite, and closes after the store. It may hold other tables. New
// refuses a database that is not migrated (ErrNotMigrated), that a later version
// has migrated (ErrNewerSchema), that is not in WAL mode, in memory, or whose
// connections do not sync, or share a cache (ErrSettings).
//
// The store takes connections out of the pool for itself, up to Options.Readers, one
// for each Watch, and 2 more, sets on them what it needs (synchronous=FULL above
// all), and closes them when it is done: no setting of the pool makes its commits
// less durable, and none of its settings reaches others. SetMaxOpenConns must leave
// it that many.
func New(ctx context.Context, db *sql.DB, opts Options) (*Store, error) {
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	if most := db.Stats().MaxOpenConnections; most > 0 && most < opts.Readers+ownConns {
		return nil, fmt.Errorf("%w: the pool is limited to %d connections and the store takes up to %d; raise SetMaxOpenConns, or lower Options.Readers",
			ErrSettings, most, opts.Readers+ownConns)
	}
	return start(ctx, db, opts, false)
}

func start(ctx context.Context, db *sql.DB, opts Options, owned bool) (*Store, error) {
	s := &Store{
		opts:    opts,
		db:      db,
		owned:   owned,
		queue:   make(chan *op, maxBatch),
		stop:    make(chan struct{}),
		news:    make(chan struct{}),
		readers: readers{tokens: make(chan struct{}, opts.Readers)},

		watching: make(map[*conn]struct{}),
	}
	s.life, s.end = context.WithCancel(context.Background())
	// One of each is opened now: what is wrong with them is better known now.
	w, err := s.dial(ctx, forWriting)
	if err != nil {
		s.end()
		return nil, err
	}
	if err = w.checkSchema(); err == nil {
		var r *conn
		if r, err = s.dial(ctx, forReading); err == nil {
			s.readers.push(r)
			err = apart(w, r)
		}
	}
	if err != nil {
		s.readers.discard()
		w.discard()
		s.end()
		return nil, startError(err)
	}
	s.done.Go(func() { s.write(w) })
	return s, nil
}

func startError(err error) error {
	for _, known := range []error{ErrSettings, ErrNotMigrated, ErrNewerSchema} {
		if errors.Is(err, known) {
			return err
		}
	}
	return classified("open", reading, err)
}

// dial takes a connection, waiting for what may be in the way for a moment, and for
// a pool whose connections are all in use.
func (s *Store) dial(ctx context.Context, u use) (c *conn, err error) {
	bounded, cancel := context.WithTimeout(ctx, s.opts.BusyTimeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	err = wait(bounded, s.stop, time.Now().Add(s.opts.BusyTimeout), func() (err error) {
		c, err = dial(bounded, s.db, u)
		return err
	})
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("sqlite: open a connection: %w", ctx.Err())
	case s.life.Err() != nil:
		return nil, backend.ErrClosed
	case bounded.Err() != nil && errors.Is(err, bounded.Err()):
		// Not the caller's context: its error must not look as if it were.
		return nil, fmt.Errorf("sqlite: open a connection: %w: the pool has none to spare", backend.ErrUnavailable)
	}
	return nil, startError(err)
}

// ready is the start of every call; leave ends it.
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	// Only Close ever asks for the write lock: while it waits for calls under way,
	// it must not hold up others.
	if !s.mu.TryRLock() {
		return backend.ErrClosed
	}
	if s.closed {
		s.mu.RUnlock()
		return backend.ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.mu.RUnlock() }

// Close implements backend.Store. It waits for the calls under way: writes that
// were accepted are committed, unless another process has the lock just then.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	s.end()
	s.mu.Unlock()
	s.done.Wait()
	s.readers.discard()
	s.unwatchAll()
	if s.owned {
		if err := s.db.Close(); err != nil {
			return fmt.Errorf("sqlite: close: %w", err)
		}
	}
	return nil
}

// Stats is what a Store has done since it was opened.
type Stats struct {
	Writes  uint64 // operations that changed something, each durable
	Commits uint64 // synced commits that they took
}

// Stats returns the counts so far, of this Store alone.
func (s *Store) Stats() Stats {
	return Stats{Writes: s.writes.Load(), Commits: s.commits.Load()}
}

// Maintain implements backend.Maintainer: it lets SQLite refresh its statistics
// where it finds that worthwhile, and moves the write-ahead log into the database,
// so that the log's file becomes short again. What others are in the way of is
// left to the next time.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	defer s.leave()
	c, err := s.dial(ctx, forWriting)
	if err != nil {
		return err
	}
	defer c.discard()
	// PASSIVE does the work and blocks nobody. TRUNCATE then has little to do; it
	// does not wait for readers, for that would be with the write lock in its hand.
	for _, pragma := range []string{`PRAGMA optimize`, `PRAGMA wal_checkpoint(PASSIVE)`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sqlite: maintain: %w", err)
		}
		if err := c.exec(pragma); err != nil && !busy(err) {
			return classified("maintain", writing, err)
		}
	}
	return nil
}
