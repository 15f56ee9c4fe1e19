package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
	code "modernc.org/sqlite/lib"
)

func TestManyWritersShareACommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	var largest atomic.Int64
	s.OnBatch(func(n int) {
		for old := largest.Load(); int64(n) > old && !largest.CompareAndSwap(old, int64(n)); old = largest.Load() {
		}
	})
	const writers, each = 64, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Put(context.Background(), record(uint64(w*each+i)), backend.IfAbsent()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	require.Equal(t, uint64(writers*each), st.Writes)
	require.Less(t, st.Commits, st.Writes/4, "writes that wait share a commit")
	require.Greater(t, largest.Load(), int64(8))
}

func TestAWriteCancelledWhileItWaitsIsNotMade(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnBatch(func(int) { once.Do(func() { close(busy); <-release }) })
	first := make(chan error, 1)
	go func() { _, err := s.Put(context.Background(), record(1), backend.IfAbsent()); first <- err }()
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { _, err := s.Put(ctx, record(2), backend.IfAbsent()); second <- err }()
	cancel()
	err := <-second
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
	close(release)
	require.NoError(t, <-first)
	_, err = s.Get(t.Context(), record(2).ID)
	require.ErrorIs(t, err, backend.ErrNotFound)
}

// Whoever gives up while the commit is under way does not know, and does not end
// it for the others.
func TestAWriteCancelledAtItsCommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnCommit(func() { once.Do(func() { close(busy); <-release }) })
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := s.Put(ctx, record(1), backend.IfAbsent()); first <- err }()
	<-busy
	cancel()
	err := <-first
	require.ErrorIs(t, err, backend.ErrIndeterminate)
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
	require.NoError(t, err)
	_, err = s.Get(t.Context(), record(1).ID)
	require.NoError(t, err, "it was written after all")
}

// lock takes the write lock of a file until unlock is called, as a transaction of
// another process does.
func lock(t *testing.T, file string) (unlock func()) {
	c, err := pool(t, "file:"+file).Conn(t.Context())
	require.NoError(t, err)
	_, err = c.ExecContext(context.Background(), "BEGIN IMMEDIATE")
	require.NoError(t, err)
	var once sync.Once
	unlock = func() {
		once.Do(func() {
			_, err := c.ExecContext(context.Background(), "ROLLBACK")
			require.NoError(t, errors.Join(err, c.Close()))
		})
	}
	t.Cleanup(unlock)
	return unlock
}

// While another process keeps the lock, writes wait as long as they may, all of
// them at the same time, and then surely were not made; reads do not wait.
func TestALockThatAnotherKeeps(t *testing.T) {
	t.Parallel() // it mostly waits
	const patience = 300 * time.Millisecond
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{BusyTimeout: patience})
	patient := open(t, file, sqlite.Options{BusyTimeout: time.Hour})
	await.Until(t, "a first record", func() bool { // at leisure
		_, err := patient.Put(t.Context(), record(0), backend.IfAbsent())
		return err == nil
	})
	unlock := lock(t, file)
	await.Quick(t, "writes that wait at the same time", 10*patience, func() {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range uint64(20) {
			wg.Go(func() {
				_, err := s.Put(context.Background(), record(1+i), backend.IfAbsent())
				if !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrIndeterminate) {
					t.Errorf("a Put that met a lock answered (%v)", err)
				}
			})
		}
		_, err := s.Get(t.Context(), record(0).ID)
		require.NoError(t, err)
		wg.Wait()
		require.GreaterOrEqual(t, time.Since(start), patience)
	})
	// The caller's deadline ends it sooner: here the store would wait for an hour.
	ctx, cancel := context.WithTimeout(context.Background(), patience/4)
	defer cancel()
	_, err := patient.Put(ctx, record(100), backend.IfAbsent())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, backend.ErrIndeterminate, "a Put that met a lock, past its deadline")

	later := make(chan error, 1)
	go func() { _, err := patient.Put(context.Background(), record(1), backend.IfAbsent()); later <- err }()
	time.Sleep(patience / 10) // it most likely waits for the lock by now
	unlock()
	require.NoError(t, <-later)
	for i := range uint64(20) {
		if i > 0 {
			_, err = s.Get(t.Context(), record(1+i).ID)
			require.ErrorIs(t, err, backend.ErrNotFound)
		}
	}

	defer lock(t, file)()
	go func() { _, err := patient.Put(context.Background(), record(200), backend.IfAbsent()); later <- err }()
	time.Sleep(patience / 10)
	require.NoError(t, patient.Close(), "Close does not wait for a lock")
	require.ErrorIs(t, <-later, backend.ErrClosed)
}

// A commit that failed has an unknown outcome; what was refused beside it may have
// been refused for what was not committed.
func TestACommitThatFails(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	create(t, s, 0, 1)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnBatch(func(int) { once.Do(func() { close(blocked); <-release }) })
	go func() { _, _ = s.Put(context.Background(), record(1000), backend.IfAbsent()) }()
	<-blocked
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := s.Put(context.Background(), record(1), backend.IfAbsent()); errs <- err }()
	}
	broken := errors.New("input/output error")
	s.FailCommits(broken)
	await.Until(t, "both in the queue", func() bool { return s.Queued() == 2 })
	close(release)
	unknown, unavailable := 0, 0
	for range 2 {
		err := <-errs
		require.ErrorIs(t, err, broken)
		switch {
		case errors.Is(err, backend.ErrIndeterminate):
			unknown++
		case errors.Is(err, backend.ErrUnavailable):
			unavailable++
		}
	}
	require.Equal(t, [2]int{1, 1}, [2]int{unknown, unavailable})
	s.FailCommits(nil)
	v, err := s.Put(t.Context(), record(2), backend.IfAbsent())
	require.NoError(t, err, "the next one has a connection of its own")
	require.NoError(t, s.Delete(t.Context(), record(2).ID, v))
}

// failure is an error of the driver with a result code.
type failure int

func (f failure) Error() string { return fmt.Sprint("code ", int(f)) }
func (f failure) Code() int     { return int(f) }

func TestWhatErrorsMean(t *testing.T) {
	const none = 0
	for c, want := range map[int][3]error{ // reading, writing, committing
		code.SQLITE_BUSY:                            {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrUnavailable},
		code.SQLITE_BUSY_RECOVERY:                   {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrUnavailable},
		code.SQLITE_LOCKED:                          {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_FULL:                            {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrUnavailable},
		code.SQLITE_IOERR:                           {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_IOERR_FSYNC:                     {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_CORRUPT:                         {backend.ErrCorrupt, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_NOTADB:                          {backend.ErrCorrupt, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_READONLY:                        {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_CANTOPEN:                        {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_NOMEM:                           {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_INTERRUPT:                       {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_CONSTRAINT_CHECK:                {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		none:                                        {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_CORRUPT | 1<<8:                  {backend.ErrCorrupt, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_IOERR_SHORT_READ:                {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
		code.SQLITE_READONLY | 8<<8 /* db moved */ : {backend.ErrUnavailable, backend.ErrUnavailable, backend.ErrIndeterminate},
	} {
		cause := fmt.Errorf("wrapped: %w", failure(c))
		for i, got := range []error{
			sqlite.Classified(sqlite.Reading, cause), sqlite.Classified(sqlite.Writing, cause), sqlite.Classified(sqlite.Committing, cause),
		} {
			require.ErrorIs(t, got, want[i], "code %d, phase %d", c, i)
			require.ErrorIs(t, got, failure(c))
			for _, other := range []error{backend.ErrUnavailable, backend.ErrIndeterminate, backend.ErrCorrupt} {
				if other != want[i] {
					require.NotErrorIs(t, got, other, "code %d, phase %d", c, i)
				}
			}
		}
	}
	require.NoError(t, sqlite.Classified(sqlite.Committing, nil))
	require.NotErrorIs(t, sqlite.Classified(sqlite.Reading, context.Canceled), backend.ErrUnavailable)
	for _, usable := range []error{nil, failure(code.SQLITE_BUSY), failure(code.SQLITE_CONSTRAINT), sql.ErrNoRows, backend.ErrNotFound, context.Canceled} {
		require.False(t, sqlite.Broken(usable), "%v", usable)
	}
	for _, unusable := range []error{failure(code.SQLITE_IOERR), failure(code.SQLITE_FULL), sql.ErrConnDone} {
		require.True(t, sqlite.Broken(unusable), "%v", unusable)
	}
}

// A row that is no record is corrupt, to whoever reads it, and to nobody else.
func TestARowThatIsNoRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{})
	create(t, s, 0, 2)
	db := pool(t, "file:"+file+"?_pragma=ignore_check_constraints(1)")
	for column, value := range map[string]string{"parent": "x'01'", "kind": "256", "version": "0", "created": "-1", "expires": "-5"} {
		var was any
		id := record(0).ID
		require.NoError(t, db.QueryRow("SELECT "+column+" FROM fob_record WHERE id = ?", id[:]).Scan(&was))
		execute(t, db, "UPDATE fob_record SET "+column+" = "+value+" WHERE id = ?", id[:])
		_, err := s.Get(t.Context(), id)
		require.ErrorIs(t, err, backend.ErrCorrupt, column)
		require.ErrorContains(t, err, fmt.Sprintf("%x", id))
		_, err = s.Get(t.Context(), record(1).ID)
		require.NoError(t, err)
		execute(t, db, "UPDATE fob_record SET "+column+" = ? WHERE id = ?", was, id[:])
		_, err = s.Get(t.Context(), id)
		require.NoError(t, err)
	}
}

// A damaged page is corrupt for who needs it, and does not keep others from being
// written.
func TestADamagedPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	s := open(t, file, sqlite.Options{})
	const n = 200
	for i := range uint64(n) {
		rec := record(i)
		rec.Body = make([]byte, 1500) // two in a page
		_, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	db, err := sql.Open("sqlite", "file:"+file)
	require.NoError(t, err)
	// A leaf of the table that holds records; the indexes stay whole.
	var page int64
	require.NoError(t, db.QueryRow("SELECT pageno FROM dbstat WHERE name = 'fob_record' AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 5").Scan(&page))
	require.NoError(t, db.Close())
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 4096), (page-1)*4096)
	require.NoError(t, errors.Join(err, f.Close()))

	s = open(t, file, sqlite.Options{})
	var damaged []uint64
	for i := range uint64(n) {
		_, err := s.Get(t.Context(), record(i).ID)
		if err != nil {
			require.ErrorIs(t, err, backend.ErrCorrupt)
			damaged = append(damaged, i)
		}
	}
	require.NotEmpty(t, damaged)
	require.Less(t, len(damaged), 5)
	// One of a batch wants the page, and the others do not have to suffer.
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.OnBatch(func(int) { once.Do(func() { close(blocked); <-release }) })
	go func() { _, _ = s.Put(context.Background(), record(5000), backend.IfAbsent()) }()
	<-blocked
	bad, good := make(chan error, 1), make(chan error, 8)
	go func() { bad <- s.Delete(context.Background(), record(damaged[0]).ID, damaged[0]+2) }()
	for i := range uint64(8) {
		go func() { _, err := s.Put(context.Background(), record(6000+i), backend.IfAbsent()); good <- err }()
	}
	await.Until(t, "all nine in the queue", func() bool { return s.Queued() == 9 })
	close(release)
	err = <-bad
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "malformed")
	for range 8 {
		require.NoError(t, <-good)
	}
}

// N stops at the largest number that the database knows.
func TestUsageStopsAtTheLargestNumber(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "fob.db"), sqlite.Options{})
	const most = 1<<63 - 1
	id := record(0).ID
	for _, n := range []uint64{1, 1 << 63, 5, most} {
		require.NoError(t, s.AddUsage(t.Context(), []backend.Usage{{ID: id, N: n, Last: -7}}))
	}
	got, err := s.Usage(t.Context(), []backend.ID{id})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: id, N: most}}, got)
}

// Two Stores in one process on one file see each other's writes at once.
func TestTwoStoresInOneProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fob.db")
	a, b := open(t, file, sqlite.Options{}), open(t, file, sqlite.Options{})
	for i := range uint64(50) {
		v, err := a.Put(t.Context(), record(i), backend.IfAbsent())
		require.NoError(t, err)
		rec, err := b.Get(t.Context(), record(i).ID)
		require.NoError(t, err)
		require.Equal(t, v, rec.Version)
		_, err = b.Put(t.Context(), record(i), backend.IfVersion(v))
		require.NoError(t, err)
		_, err = a.Put(t.Context(), record(i), backend.IfVersion(v))
		require.ErrorIs(t, err, backend.ErrConflict)
	}
	require.NoError(t, a.Close())
	create(t, b, 100, 101)
}

// An application that uses up its own pool gets an answer, and can close.
func TestAPoolWithNothingToSpare(t *testing.T) {
	db := pool(t, "file:"+filepath.Join(t.TempDir(), "app.db"))
	require.NoError(t, sqlite.Migrate(t.Context(), db))
	db.SetMaxOpenConns(5)
	s, err := sqlite.New(t.Context(), db, sqlite.Options{Readers: 2, BusyTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	create(t, s, 0, 1)
	take := func() {
		for db.Stats().InUse < 5 {
			c, err := db.Conn(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Close()) })
		}
	}
	take()
	_, err = s.Get(t.Context(), record(0).ID)
	require.NoError(t, err, "it has a connection for that")
	check := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "pool")
	}
	check(s.Watch(t.Context(), nil, func(backend.Batch) error { return errEnough }))
	s.FailCommits(errors.New("input/output error"))
	_, err = s.Put(t.Context(), record(1), backend.IfAbsent())
	require.ErrorIs(t, err, backend.ErrIndeterminate)
	s.FailCommits(nil)
	take()
	_, err = s.Put(t.Context(), record(2), backend.IfAbsent())
	check(err)
	require.NoError(t, s.Close())
}
