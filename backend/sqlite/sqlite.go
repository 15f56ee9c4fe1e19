package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/fobkit/fob/backend/internal/writequeue"
	engine "modernc.org/sqlite"
)

// Store is a store in a database file. Make one with Open or New. It is safe for
// concurrent use, and so are several Stores on one file, in one process or in
// several. It runs one goroutine of its own, which Close ends.
type Store struct {
	opts  Options
	db    *sql.DB
	owned bool   // Open made db, and Close closes it
	dir   string // of the database file
	log   string // the write-ahead log, beside it

	queue *writequeue.Queue[*batch]
	stop  chan struct{} // closed by Close
	done  sync.WaitGroup
	life  context.Context // ends when stop is closed, for what takes a context
	end   context.CancelFunc

	calls   calls.Gate
	changed *news.Bell // rings when this Store has committed a change

	readers readers

	watchMu  sync.Mutex // guards watching
	watching map[*conn]*listener

	commits, writes atomic.Uint64
	hooks           hooks
}

// hooks are for tests.
type hooks struct {
	commitError func() error         // in place of a commit's own answer
	batched     func(operations int) // before a batch is evaluated
	committing  func()               // after it, before it is committed
	applied     func() error         // after each operation that succeeded, in place of its answer
	freeBytes   func() uint64        // in place of the file system's
	asked       func()               // before a Watch looks at the file
	looked      func()               // after a Watch has read the changes
	keep        uint64               // in place of keepChanges
	batch       int                  // in place of maxChanges
}

var (
	_ backend.Store         = (*Store)(nil)
	_ backend.Watcher       = (*Store)(nil)
	_ backend.Lister        = (*Store)(nil)
	_ backend.Counter       = (*Store)(nil)
	_ backend.BulkReader    = (*Store)(nil)
	_ backend.Scanner       = (*Store)(nil)
	_ backend.UsageRecorder = (*Store)(nil)
	_ backend.Purger        = (*Store)(nil)
	_ backend.Maintainer    = (*Store)(nil)
)

// Open opens the database file at path, which is made with mode 0600 if it is not
// there, and migrates it (see Migrate). The file is the store's alone: one that
// holds something else is refused with ErrSettings, and backend.ErrUnavailable says
// what is wrong with its place: a file system that is read-only, a directory that is not
// there, rights that are lacking. path is a file name, in which no character is special;
// it is neither a URI nor ":memory:". What others may do with the file is taken from
// them: see Options.InsecureGroupAccess.
func Open(path string, opts Options) (*Store, error) {
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	path, err = prepareFile(path, opts)
	if err != nil {
		return nil, err
	}
	dsn := dataSourceName(path)
	connector, err := engine.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlite: open: %w", err)
	}
	db := sql.OpenDB(connector)
	ctx := context.Background()
	err = migrate(ctx, db, true)
	if err == nil {
		err = tightenFiles(path, opts)
	}
	if err == nil {
		var s *Store
		if s, err = start(ctx, db, opts, true); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), db.Close())
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
		stop:    make(chan struct{}),
		calls:   calls.Gate{Engine: "sqlite"},
		changed: news.NewBell(),
		readers: readers{tokens: make(chan struct{}, opts.Readers)},

		watching: make(map[*conn]*listener),
	}
	s.queue = writequeue.New[*batch](&s.calls, maxBatch)
	s.life, s.end = context.WithCancel(context.Background())
	// One of each is opened now: what is wrong with them is better known now.
	w, err := s.dial(ctx, forWriting)
	if err != nil {
		s.end()
		return nil, err
	}
	var file string
	if err = errors.Join(w.checkSchema(), w.ask(sqlFile, &file)); err == nil {
		s.dir, s.log = filepath.Dir(file), file+"-wal"
		var r *conn
		if r, err = s.dial(ctx, forReading); err == nil {
			s.readers.push(r)
			err = checkSeparateCaches(w, r)
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
	return contractError("open", phaseReading, err)
}

// dial takes a connection, waiting for what may be in the way for a moment, and for
// a pool whose connections are all in use.
func (s *Store) dial(ctx context.Context, u use) (c *conn, err error) {
	bounded, cancel := context.WithTimeout(ctx, s.opts.BusyTimeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	err = waitWhileBusy(bounded, s.stop, time.Now().Add(s.opts.BusyTimeout), func() (err error) {
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

// Close implements backend.Store. It waits for the calls under way: writes that
// were accepted are committed, unless another process has the lock just then.
func (s *Store) Close() error {
	if !s.calls.Close() {
		return nil
	}
	close(s.stop) // every call that is under way has left: nothing comes into the queue any more
	s.end()
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
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
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
		if err := c.exec(pragma); err != nil && !isBusy(err) {
			return contractError("maintain", phaseWriting, err)
		}
	}
	return nil
}
