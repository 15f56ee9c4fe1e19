package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/fobkit/fob/backend"
	code "modernc.org/sqlite/lib"
)

// Errors of New and Open, beside those of package backend.
var (
	// ErrSettings: the database is not set up so that a commit is durable and other
	// processes can work beside it. The text names the setting.
	ErrSettings = errors.New("sqlite: unfit database settings")
	// ErrNotMigrated: the database lacks the tables, or has those of an earlier
	// version of this package. Call Migrate.
	ErrNotMigrated = errors.New("sqlite: database is not migrated")
	// ErrNewerSchema: a later version of this package has migrated the database.
	ErrNewerSchema = errors.New("sqlite: database is of a newer version")
)

// phase is what was being done when the engine failed: it decides what a failure
// says about the outcome.
type phase int

const (
	phaseReading    phase = iota // nothing can have changed
	phaseWriting                 // in a transaction that is rolled back: nothing has changed
	phaseCommitting              // nobody knows
)

// codedError is an error of the driver, which may come wrapped by another driver.
type codedError interface {
	error
	Code() int
}

// primaryCode is SQLite's result code without its extension, 0 where err has none.
func primaryCode(err error) int {
	if e, ok := errors.AsType[codedError](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// isBusy reports whether another connection is in the way for a moment.
func isBusy(err error) bool {
	switch primaryCode(err) {
	case code.SQLITE_BUSY, code.SQLITE_LOCKED, code.SQLITE_PROTOCOL: // the last is a race for the log's index
		return true
	}
	return false
}

// contractError wraps an error of the engine with the sentinel that is true of it.
func contractError(what string, ph phase, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, backend.ErrCorrupt), errors.Is(err, backend.ErrClosed), errors.Is(err, backend.ErrUnavailable):
		return err
	case ph == phaseReading && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return fmt.Errorf("sqlite: %s: %w", what, err)
	}
	if why := errorHint(err); why != "" {
		return fmt.Errorf("sqlite: %s: %w: %w: %s", what, errorSentinel(ph, err), err, why)
	}
	return fmt.Errorf("sqlite: %s: %w: %w", what, errorSentinel(ph, err), err)
}

// errorHint says what SQLite's own text leaves out: what to do.
func errorHint(err error) string {
	switch primaryCode(err) {
	case code.SQLITE_CANTOPEN:
		return "the file or its directory is not there, may not be written to by this process, or is on a file system that is mounted read-only; SQLite makes files beside the database, for reading too"
	case code.SQLITE_READONLY, code.SQLITE_PERM:
		return "the file, its directory, or a -wal or -shm file beside it may not be written to by this process, or is on a file system that is mounted read-only"
	case code.SQLITE_FULL:
		return "free space on the file system, or raise PRAGMA max_page_count"
	case code.SQLITE_BUSY, code.SQLITE_LOCKED:
		return "another connection holds the database: a long transaction, or locking_mode=EXCLUSIVE"
	}
	return ""
}

func errorSentinel(ph phase, err error) error {
	c := primaryCode(err)
	switch ph {
	case phaseReading:
		// What is damaged will not be better at the next try: not "unavailable".
		if c == code.SQLITE_CORRUPT || c == code.SQLITE_NOTADB {
			return backend.ErrCorrupt
		}
	case phaseWriting: // nothing is committed yet
	case phaseCommitting:
		// The frame that makes a transaction valid is the last thing that is written
		// before the sync (SQLite pads nothing after it unless told psow=0). A disk that
		// was full before that has no transaction on it;
		// BUSY is answered before anything is written. Whatever else fails may have
		// failed after it.
		if c != code.SQLITE_FULL && c != code.SQLITE_BUSY {
			return backend.ErrIndeterminate
		}
	}
	return backend.ErrUnavailable
}

// harmlessErrors are errors that are not the engine's: they say nothing of a connection.
var harmlessErrors = []error{
	sql.ErrNoRows, backend.ErrNotFound, backend.ErrCorrupt, backend.ErrClosed, errGone, context.Canceled, context.DeadlineExceeded,
}

// isBroken reports whether a connection may not be used any further after err. To open
// another one costs twenty times what a read does.
func isBroken(err error) bool {
	if err == nil || isBusy(err) || primaryCode(err) == code.SQLITE_CONSTRAINT {
		return false
	}
	return !slices.ContainsFunc(harmlessErrors, func(known error) bool { return errors.Is(err, known) })
}
