package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrStandby says that the server is a standby. It answers from the past, where a
// revoked credential may still be good, so a Store refuses it; it comes with
// backend.ErrUnavailable. Let the pool find the primary: target_session_attrs=primary.
var ErrStandby = errors.New("postgres: the server is a standby, not the primary")

// SchemaError says that the tables in a schema are not those that this package
// works with.
type SchemaError struct {
	Schema string
	Have   int // the migration it is at; 0 where there is none
	Want   int // SchemaVersion
}

// Error says what to do.
func (e *SchemaError) Error() string {
	switch {
	case e.Have == 0:
		return fmt.Sprintf("postgres: schema %q has no tables of a store: call Migrate", e.Schema)
	case e.Have > e.Want:
		return fmt.Sprintf("postgres: schema %q is at migration %d, newer than the %d that this version knows: use a newer version", e.Schema, e.Have, e.Want)
	}
	return fmt.Sprintf("postgres: schema %q is at migration %d, and %d is needed: call Migrate", e.Schema, e.Have, e.Want)
}

// Configure readies a pool's configuration, and is needed only with synchronous
// standbys: when the wait for one of them is cancelled, the server commits
// all the same and says so in a warning alone. With Configure the write then
// answers backend.ErrIndeterminate; without, it is taken for acknowledged.
// Handlers of notices that are set already go on being called.
func Configure(config *pgxpool.Config) {
	next := config.ConnConfig.OnNotice
	config.ConnConfig.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
		if n.File == "syncrep.c" && severity((*pgconn.PgError)(n)) == "WARNING" {
			conn.CustomData()[unreplicated] = true
		}
		if next != nil {
			next(conn, n)
		}
	}
}

// unreplicated is where Configure notes, on a connection, that a commit has not
// reached a synchronous standby.
const unreplicated = "fob: committed, not replicated"

// stage is how far a call had come.
type stage uint8

const (
	stageAcquiring stage = iota + 1 // nothing was sent
	stageReading                    // a statement that changes nothing was sent
	stageWriting                    // one that does
)

// verdict turns an error into what the contract calls it, and says whether to try
// again: only where the statement surely changed nothing. caller is the context
// of the call, without a bound of our own.
func verdict(caller context.Context, doing string, at stage, err error) (mapped error, again bool) {
	if isAnswer(err) {
		return fmt.Errorf("postgres: %s: %w", doing, err), false
	}
	pg := serverError(err)
	// The statement is a transaction of its own, so an ERROR means that it was
	// rolled back. After a FATAL nobody knows: the server may have ended between
	// the commit and its answer. Nor does a pooler that lost the server meanwhile: old
	// PgBouncers call that an ERROR, but without the field that every server sends.
	refused := pg != nil && pg.SeverityUnlocalized == "ERROR"
	unsent := at == stageAcquiring || pgconn.SafeToRetry(err)
	unknown := at == stageWriting && !refused && !unsent
	if ended := caller.Err(); ended != nil {
		if unknown {
			return fmt.Errorf("postgres: %s: %w: %w", doing, backend.ErrIndeterminate, ended), false
		}
		return fmt.Errorf("postgres: %s: %w", doing, ended), false
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		// Ours, and not to be taken for the caller's.
		err = errors.New("no answer in time (Options.StatementTimeout)")
		if at == stageAcquiring {
			err = errors.New("no connection of the pool, or no turn, in time (Options.StatementTimeout)")
		}
	case refused:
		return refusalError(doing, pg)
	}
	if unknown {
		return fmt.Errorf("postgres: %s: %w: %w", doing, backend.ErrIndeterminate, err), false
	}
	return fmt.Errorf("postgres: %s: %w: %w", doing, backend.ErrUnavailable, err), at != stageAcquiring
}

// isAnswer reports whether an error is an answer of the store, and not a failure.
func isAnswer(err error) bool {
	return errors.Is(err, backend.ErrNotFound) || errors.Is(err, backend.ErrConflict) ||
		errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrCorrupt) || errors.Is(err, backend.ErrIndeterminate)
}

func serverError(err error) *pgconn.PgError {
	pg, _ := errors.AsType[*pgconn.PgError](err)
	return pg
}

// severity is not translated by the server.
func severity(pg *pgconn.PgError) string {
	if pg.SeverityUnlocalized != "" {
		return pg.SeverityUnlocalized
	}
	return pg.Severity
}

// refusalError is what an ERROR of the server means: the statement changed nothing.
func refusalError(doing string, pg *pgconn.PgError) (err error, again bool) {
	kind, hint := backend.ErrUnavailable, ""
	switch pg.Code {
	case "40001", "40P01": // serialization failure, deadlock: another try may pass
		again = true
	case "0A000": // a prepared statement's result has changed with a migration; it is prepared anew
		again = true
	case "26000", "42P05": // a prepared statement that the session does not have, or has already
		again = true
		hint = ": behind a pooler in transaction mode set default_query_exec_mode=exec"
	case "XX001", "XX002": // data or index corrupted
		kind = backend.ErrCorrupt
	case "2201W", "55000": // the statement's own guard; recovery is in progress
		return fmt.Errorf("postgres: %s: %w: %w: %w", doing, backend.ErrUnavailable, ErrStandby, pg), false
	case "25006": // read-only transaction
		hint = ": the server, or the role, takes no writes; a standby does not"
	case "42501": // insufficient privilege
		hint = ": see Grants"
	case "42P01", "3F000", "42703": // no such table, schema, column
		hint = ": see Migrate"
	case "57014": // cancelled, by statement_timeout as a rule
		hint = ": statement_timeout, or a cancel"
	}
	return fmt.Errorf("postgres: %s: %w%s: %w", doing, kind, hint, pg), again
}

// isLasting reports whether an error will be there again however often one asks:
// a missing table, a missing privilege.
func isLasting(err error) bool {
	pg := serverError(err)
	return pg != nil && len(pg.Code) == 5 && (pg.Code[:2] == "42" || pg.Code == "3F000")
}

// ifNoRows turns "no rows" into an answer.
func ifNoRows(err, meaning error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return meaning
	}
	return err
}
