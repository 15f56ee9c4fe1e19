package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
)

// conn is a connection that the store has for itself, with the settings that it
// needs, whatever those of the pool are that it was taken from. One goroutine
// uses it at a time.
//
// What runs on it runs with a context that never ends: the driver answers the end
// of a context by interrupting whatever the connection does, which would end a
// transaction that others share. Statements are short; waiting is done here, in
// Go, and ends with the caller's context.
type conn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
}

// use says what a connection is for.
type use int

const (
	forReading use = iota
	forWriting
)

// dial takes a connection out of the pool and sets it up.
func dial(ctx context.Context, db *sql.DB, u use) (*conn, error) {
	raw, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{c: raw, stmts: make(map[string]*sql.Stmt)}
	if err := c.setUp(u); err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

// setUp checks the settings that belong to the file or to everybody's
// connections, and makes those that belong to this connection.
func (c *conn) setUp(u use) error {
	if err := c.exec(`PRAGMA busy_timeout = 0`); err != nil { // see waitWhileBusy
		return err
	}
	var file, journal, locking string
	var synchronous int
	if err := errors.Join(
		c.ask(sqlFile, &file),
		c.ask(`PRAGMA journal_mode`, &journal),
		c.ask(`PRAGMA locking_mode`, &locking),
		c.ask(`PRAGMA synchronous`, &synchronous),
	); err != nil {
		return err
	}
	switch {
	case file == "":
		return fmt.Errorf("%w: the database is in memory; use backend/memory for that", ErrSettings)
	case !strings.EqualFold(journal, "wal"):
		return fmt.Errorf("%w: journal_mode is %s, want WAL: Migrate sets it", ErrSettings, journal)
	case !strings.EqualFold(locking, "normal"):
		return fmt.Errorf("%w: locking_mode is %s, want NORMAL: other connections must get in", ErrSettings, locking)
	case synchronous == 0:
		// Ours could be raised. But any connection may move commits from the log into
		// the database, and one that never syncs loses them there.
		return fmt.Errorf("%w: synchronous is OFF on a connection of the pool, want NORMAL at least, on every connection to the file", ErrSettings)
	}
	// fullfsync matters on macOS, where fsync alone leaves data in the drive. Those
	// that read are given it too: whichever connection is closed last empties the log.
	set := []string{`PRAGMA fullfsync = ON`, `PRAGMA checkpoint_fullfsync = ON`, `PRAGMA query_only = OFF`}
	if synchronous < syncFull {
		set = append(set, `PRAGMA synchronous = FULL`)
	}
	if u == forReading {
		set = append(set, `PRAGMA query_only = ON`)
	}
	for _, pragma := range set {
		if err := c.exec(pragma); err != nil {
			return err
		}
	}
	if err := c.ask(`PRAGMA synchronous`, &synchronous); err != nil {
		return err
	}
	if synchronous < syncFull {
		return fmt.Errorf("%w: synchronous stays at %d", ErrSettings, synchronous)
	}
	return nil
}

// checkSeparateCaches refuses two connections that share a cache: one setting of synchronous would
// hold for both then, the last that anybody made. They also share a cache_size.
func checkSeparateCaches(a, b *conn) error {
	var first, second, after int
	err := errors.Join(a.ask(`PRAGMA cache_size`, &first), b.ask(`PRAGMA cache_size`, &second),
		b.exec(fmt.Sprint(`PRAGMA cache_size = `, first-1)),
		a.ask(`PRAGMA cache_size`, &after),
		b.exec(fmt.Sprint(`PRAGMA cache_size = `, second)))
	if err == nil && after != first {
		return fmt.Errorf("%w: cache=shared: the connections share one cache, and with it whether commits are synced", ErrSettings)
	}
	return err
}

// syncFull is PRAGMA synchronous = FULL: each commit is synced. EXTRA is 3.
const syncFull = 2

// stmt is a prepared statement of this connection.
func (c *conn) stmt(text string) (*sql.Stmt, error) {
	if s := c.stmts[text]; s != nil {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.Background(), text)
	if err == nil {
		c.stmts[text] = s
	}
	return s, err
}

// exec runs a statement that is not worth preparing.
func (c *conn) exec(text string) error {
	_, err := c.c.ExecContext(context.Background(), text)
	return err
}

// ask is exec for a statement that answers one row.
func (c *conn) ask(text string, into ...any) error {
	return c.c.QueryRowContext(context.Background(), text).Scan(into...)
}

// run runs a prepared statement and says how many rows it changed.
func (c *conn) run(text string, args ...any) (rows int64, err error) {
	s, err := c.stmt(text)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row runs a prepared statement that answers one row, or sql.ErrNoRows.
func (c *conn) row(text string, args []any, into ...any) error {
	s, err := c.stmt(text)
	if err != nil {
		return err
	}
	return s.QueryRowContext(context.Background(), args...).Scan(into...)
}

// rows runs a prepared statement and calls each for each row.
func (c *conn) rows(text string, args []any, each func(*sql.Rows) error) error {
	s, err := c.stmt(text)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := each(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// discard closes the connection, which undoes a transaction that is open. It does
// not go back to the pool: there it would surprise others with our settings.
func (c *conn) discard() {
	// database/sql leaves the statements of a Conn to who prepared them, and SQLite
	// keeps a connection open that has statements.
	for _, s := range c.stmts {
		_ = s.Close()
	}
	_ = c.c.Raw(func(any) error { return driver.ErrBadConn }) // which makes the pool close it
	_ = c.c.Close()                                           // answers that it is closed
}

// The pauses between two tries to get a lock. SQLite's own busy handler comes to
// 100 ms, in which a busy process has taken the lock a dozen times again.
const (
	firstPause = 100 * time.Microsecond
	lastPause  = 2 * time.Millisecond
)

// waitWhileBusy tries until nothing is in the way, for as long as patience says, or until
// ctx or stop ends.
func waitWhileBusy(ctx context.Context, stop <-chan struct{}, until time.Time, try func() error) error {
	pause := firstPause
	var t *time.Timer
	for {
		err := try()
		if err == nil || !isBusy(err) {
			return err
		}
		if !time.Now().Before(until) {
			return err
		}
		d := pause/2 + randomPart(pause)
		if t == nil {
			t = time.NewTimer(d)
			defer t.Stop()
		} else {
			t.Reset(d)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return backend.ErrClosed
		}
		pause = min(2*pause, lastPause)
	}
}

// randomPart is a random duration below d, so that processes do not try in step.
func randomPart(d time.Duration) time.Duration {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return d * time.Duration(binary.BigEndian.Uint16(b[:])) >> 16
}
