package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks a file that Open has made as one of ours: "fob1".
const applicationID = 0x666f6231

// latestMigration is the number of the last migration.
func latestMigration() (int, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	return len(names), err
}

// migrationText is the SQL of migration number n, from 1.
func migrationText(n int) (string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql") // in order
	if err != nil {
		return "", err
	}
	number, _, _ := strings.Cut(path.Base(names[n-1]), "_")
	if i, err := strconv.Atoi(number); err != nil || i != n {
		return "", fmt.Errorf("sqlite: migration %s is not number %d", names[n-1], n)
	}
	text, err := migrations.ReadFile(names[n-1])
	return string(text), err
}

// Migrate brings the database to the version that New wants: it makes the tables,
// whose names begin with fob_, beside others that may be there, and sets
// journal_mode=WAL, which the file keeps. It does nothing where nothing is to be
// done, and several processes may call it at the same time. A database that a later
// version of this package has migrated is refused with ErrNewerSchema.
func Migrate(ctx context.Context, db *sql.DB) error {
	return migrate(ctx, db, false)
}

// migrate is Migrate; own says that the whole file is to be ours.
func migrate(ctx context.Context, db *sql.DB, own bool) error {
	raw, err := db.Conn(ctx)
	if err != nil {
		return contractError("migrate", phaseWriting, err)
	}
	c := &conn{c: raw, stmts: make(map[string]*sql.Stmt)}
	defer c.discard()
	// As a whole, for whoever makes the file, recovers it or changes its journal mode
	// can be in the way of any step.
	err = waitWhileBusy(ctx, nil, time.Now().Add(defaultBusyTimeout), func() error {
		// Another application's file is left as it is, its journal mode too.
		if own {
			if err := c.exec(`PRAGMA busy_timeout = 0`); err != nil {
				return err
			}
			found, err := c.contents()
			if err == nil {
				err = found.theirs()
			}
			if err != nil {
				return err
			}
		}
		for _, text := range []string{`PRAGMA busy_timeout = 0`, `PRAGMA synchronous = FULL`, `PRAGMA journal_mode = WAL`, sqlBegin} {
			if err := c.exec(text); err != nil {
				return err
			}
		}
		err := c.migrate(own)
		if err == nil {
			err = c.exec(sqlCommit)
		}
		if err != nil {
			_ = c.exec(sqlRollback) // whether it succeeds shows at the next BEGIN
		}
		return err
	})
	if errors.Is(err, ErrNewerSchema) || errors.Is(err, ErrSettings) {
		return err
	}
	return contractError("migrate", phaseWriting, err)
}

// migrate runs in a transaction.
func (c *conn) migrate(own bool) error {
	found, err := c.contents()
	if err != nil {
		return err
	}
	if own && found.ours == 0 {
		if err := found.theirs(); err != nil {
			return err
		}
		if err := c.exec(fmt.Sprint(`PRAGMA application_id = `, applicationID)); err != nil {
			return err
		}
	}
	if err := c.exec(sqlCreateMeta); err != nil {
		return err
	}
	have, err := c.schemaVersion()
	if err != nil {
		return err
	}
	want, err := latestMigration()
	if err != nil {
		return err
	}
	if have > want {
		return newerSchemaError(have, want)
	}
	for n := have + 1; n <= want; n++ {
		text, err := migrationText(n)
		if err != nil {
			return err
		}
		if err := c.exec(text); err != nil {
			return fmt.Errorf("migration %d: %w", n, err)
		}
	}
	if have == want {
		return nil
	}
	_, err = c.run(sqlSetSchemaVersion, want)
	return err
}

// contents is what is in a file: how many tables, how many of them are ours, and whose
// file it says it is.
type contents struct{ tables, ours, app int }

func (c *conn) contents() (found contents, err error) {
	err = c.ask(sqlTables, &found.tables, &found.ours, &found.app)
	return found, err
}

// theirs refuses a file that is another application's.
func (f contents) theirs() error {
	if f.ours == 0 && (f.tables > 0 || f.app != 0) {
		return fmt.Errorf("%w: the file is another application's database (application_id %#x, %d tables); to share one, use Migrate and New",
			ErrSettings, f.app, f.tables)
	}
	return nil
}

func newerSchemaError(have, want int) error {
	return fmt.Errorf("%w: it has version %d of the tables, this program knows %d", ErrNewerSchema, have, want)
}

// schemaVersion is 0 where there is none.
func (c *conn) schemaVersion() (v int, err error) {
	err = c.ask(sqlSchemaVersion, &v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return v, err
}

// checkSchema refuses a database that this program does not know.
func (c *conn) checkSchema() error {
	found, err := c.contents()
	if err != nil {
		return err
	}
	want, err := latestMigration()
	if err != nil {
		return err
	}
	have := 0
	if found.ours > 0 {
		if have, err = c.schemaVersion(); err != nil {
			return err
		}
	}
	switch {
	case have < want:
		return fmt.Errorf("%w: it has version %d of the tables, this program wants %d; call Migrate", ErrNotMigrated, have, want)
	case have > want:
		return newerSchemaError(have, want)
	}
	return nil
}
