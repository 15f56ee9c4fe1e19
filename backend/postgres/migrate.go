package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SchemaVersion is the number of the last migration: what New wants to find.
const SchemaVersion = 2

// Beginner starts transactions: a *pgxpool.Pool, or a *pgx.Conn.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Migrate brings the schema of opts to SchemaVersion, and makes it if it is not
// there. It needs a role that may create tables in the schema, and the schema in
// the database: not the one that the application runs as. All of it is one
// transaction, so it happens or it does not; several callers at a time wait for
// each other, and those that come later find nothing to do. A schema that is newer
// is left alone, with a *SchemaError.
func Migrate(ctx context.Context, db Beginner, opts Options) (err error) {
	opts, err = opts.resolved()
	if err != nil {
		return err
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	defer func() {
		if err != nil {
			// Its own failure says nothing more: the transaction ends with the connection.
			_ = tx.Rollback(context.WithoutCancel(ctx))
		}
	}()
	// With a snapshot from before the wait it would not see what others have made.
	if _, err = tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"); err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	if _, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text, 7307))", opts.Schema); err != nil {
		return fmt.Errorf("postgres: migrate: wait for other migrations: %w", err)
	}
	var there bool
	if err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text)", opts.Schema).Scan(&there); err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	if !there {
		if _, err = tx.Exec(ctx, opts.fill("CREATE SCHEMA {schema}")); err != nil {
			return fmt.Errorf("postgres: migrate: create the schema: %w", err)
		}
	}
	at := 0
	if err = tx.QueryRow(ctx, "SELECT to_regclass($1::text) IS NOT NULL", quotedName(opts.Schema)+".migration").Scan(&there); err == nil && there {
		err = tx.QueryRow(ctx, opts.statements().migrations).Scan(&at)
	}
	if err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	if at > SchemaVersion {
		return &SchemaError{Schema: opts.Schema, Have: at, Want: SchemaVersion}
	}
	for number := at + 1; number <= SchemaVersion; number++ {
		var text string
		if text, err = migrationText(opts, number); err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, text); err != nil {
			return fmt.Errorf("postgres: migration %d: %w", number, err)
		}
	}
	if err = tx.Commit(ctx); err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	if at < SchemaVersion {
		opts.Logger.Info("postgres: migrated", "schema", opts.Schema, "from", at, "to", SchemaVersion)
	}
	return nil
}

// Script is the SQL of all migrations after number from, for a migration tool of
// the user's own: 0 for a new schema, which it creates too. It is to be run in one
// transaction, and records its migrations, so that New knows of them.
func Script(opts Options, from int) (string, error) {
	opts, err := opts.resolved()
	if err != nil {
		return "", err
	}
	if from < 0 || from > SchemaVersion {
		return "", fmt.Errorf("postgres: there is no migration %d, the last is %d", from, SchemaVersion)
	}
	var b strings.Builder
	if from == 0 {
		b.WriteString(opts.fill("CREATE SCHEMA IF NOT EXISTS {schema};\n"))
	}
	for number := from + 1; number <= SchemaVersion; number++ {
		text, err := migrationText(opts, number)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n-- migration %d\n%s", number, text)
	}
	return b.String(), nil
}

func migrationText(opts Options, number int) (string, error) {
	text, err := migrations.ReadFile(fmt.Sprintf("migrations/%04d.sql", number))
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	return opts.fill(string(text)), nil
}

// Access is what a role may do with a store.
type Access int

// The kinds of access: of a process that only verifies, and of one that also
// issues, changes and revokes. Neither can change the tables.
const (
	ReadOnly  Access = iota + 1 // Get, List, Usage, Watch
	ReadWrite                   // everything
)

// Grants is the SQL that gives a role, which must exist, the least that it needs
// for its access. Run it as the owner of the tables, after Migrate.
func Grants(opts Options, role string, access Access) (string, error) {
	opts, err := opts.resolved()
	if err != nil {
		return "", err
	}
	var text string
	switch access {
	case ReadOnly:
		text = readOnly
	case ReadWrite:
		text = readOnly + readWrite
	default:
		return "", errors.New("postgres: grants: neither ReadOnly nor ReadWrite")
	}
	return strings.ReplaceAll(opts.fill(text), "{role}", quotedName(role)), nil
}

const (
	readOnly = `GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.migration, {schema}.meta, {schema}.record, {schema}.label, {schema}.change, {schema}.usage TO {role};
`
	readWrite = `GRANT USAGE ON SEQUENCE {schema}.version TO {role};
GRANT INSERT, UPDATE, DELETE ON {schema}.record, {schema}.label, {schema}.usage TO {role};
GRANT INSERT, DELETE ON {schema}.change TO {role};
GRANT UPDATE (floor) ON {schema}.meta TO {role};
`
)

func quotedName(name string) string { return pgx.Identifier{name}.Sanitize() }

// replaceOnce is for text that may hold what looks like another placeholder.
func replaceOnce(text, old, by string) string { return strings.Replace(text, old, by, 1) }
