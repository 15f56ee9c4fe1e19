package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// Options is the settings of a Store, and of Migrate. The zero Options is right
// for most.
type Options struct {
	// Schema is the schema that holds the tables. Default "fob". Any name of at
	// most 55 bytes will do that does not begin with "pg_"; it is quoted wherever
	// it is used.
	Schema string
	// PollInterval is how often a Watch asks for changes while it cannot listen for them:
	// the longest that a revocation takes to arrive where NOTIFY does not work. Default
	// 50 ms; 5 ms to 100 ms (backend.HeartbeatEvery).
	PollInterval time.Duration
	// StatementTimeout bounds a call whose context has no deadline: the wait for a
	// connection and for the answer together. Default 30 s; at least 1 ms. It is
	// kept on this side and costs no round trip; to bound what the server does with
	// a statement whose caller has gone, set statement_timeout on the role.
	StatementTimeout time.Duration
	// Retention is how long a change stays in the feed. A Watch that resumes from
	// further back gets a Reset. Default 24 h; at least 1 minute.
	Retention time.Duration
	// Logger gets warnings, and at debug level what is retried. Nil discards it all.
	Logger *slog.Logger
}

const (
	defaultSchema           = "fob"
	maxSchema               = 55 // bytes: the NOTIFY channel's name is longer, and at most 63
	defaultPollInterval     = 50 * time.Millisecond
	minPollInterval         = 5 * time.Millisecond
	defaultStatementTimeout = 30 * time.Second
	defaultRetention        = 24 * time.Hour
)

// resolved fills in defaults and reports all that is wrong together.
func (o Options) resolved() (Options, error) {
	var errs []error
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	switch {
	case len(o.Schema) > maxSchema:
		errs = append(errs, fmt.Errorf("the schema's name has %d bytes, at most %d", len(o.Schema), maxSchema))
	case !utf8.ValidString(o.Schema) || strings.ContainsRune(o.Schema, 0):
		errs = append(errs, fmt.Errorf("the schema's name %q is not valid text", o.Schema))
	case strings.HasPrefix(o.Schema, "pg_") || o.Schema == "information_schema":
		errs = append(errs, fmt.Errorf("the schema's name %q is PostgreSQL's own", o.Schema))
	}
	if o.PollInterval == 0 {
		o.PollInterval = defaultPollInterval
	}
	if o.PollInterval < minPollInterval || o.PollInterval > backend.HeartbeatEvery {
		errs = append(errs, fmt.Errorf("the PollInterval is %v, want %v to %v", o.PollInterval, minPollInterval, backend.HeartbeatEvery))
	}
	if o.StatementTimeout == 0 {
		o.StatementTimeout = defaultStatementTimeout
	}
	if o.StatementTimeout < time.Millisecond {
		errs = append(errs, fmt.Errorf("the StatementTimeout is %v, want at least 1ms", o.StatementTimeout))
	}
	if o.Retention == 0 {
		o.Retention = defaultRetention
	}
	if o.Retention < time.Minute {
		errs = append(errs, fmt.Errorf("the Retention is %v, want at least 1m", o.Retention))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(errs) > 0 {
		return o, fmt.Errorf("postgres: options: %w", errors.Join(errs...))
	}
	return o, nil
}

// channel is the name that NOTIFY and LISTEN use.
func (o Options) channel() string { return "fob." + o.Schema }

// fill writes the names of a schema into SQL. A function is named with pg_catalog
// where its arguments need a conversion: another one that fits better would be
// called instead, if somebody has made one in a schema that the role searches.
func (o Options) fill(sql string) string {
	schema := pgx.Identifier{o.Schema}.Sanitize()
	return strings.NewReplacer(
		"{schema}", schema,
		"{version}", "nextval("+sqlLiteral(schema+".version")+"::regclass)",
		"{change}", sqlLiteral(schema+".change")+"::regclass::oid",
		// The lock that an insert and a delete of one ID take: see write.go.
		"{turn}", "pg_advisory_xact_lock(pg_catalog.hashtextextended(encode($1::bytea, 'hex'), 7306))",
		"{tryturn:u}", "pg_try_advisory_xact_lock(pg_catalog.hashtextextended(encode(u.id, 'hex'), 7306))",
		"{tryturn:r}", "pg_try_advisory_xact_lock(pg_catalog.hashtextextended(encode(r.id, 'hex'), 7306))",
		// A standby answers from the past: the statement fails there, since a LIMIT
		// below zero is an error, whether or not it finds a row.
		"{primary}", "LIMIT CASE WHEN pg_is_in_recovery() THEN -1 END",
	).Replace(sql)
}

// sqlLiteral is text as a string of SQL, whatever standard_conforming_strings says of
// backslashes.
func sqlLiteral(text string) string {
	text = "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(text, `\`, `\\`)
	}
	return text
}
