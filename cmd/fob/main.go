// Command fob creates and updates the tables of the stores that need some:
//
//	fob migrate -postgres postgres://owner@host/database -schema fob
//	fob migrate -postgres-print
//	fob grants -schema fob app_role
//	fob migrate -sqlite /var/lib/app/fob.db
//
// It never sees a credential. On PostgreSQL it does the same as postgres.Migrate and
// postgres.Grants. Use it if you want to migrate in a deployment and not in the
// application.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/jackc/pgx/v5"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const usage = `usage:
  fob migrate -postgres URL [-schema NAME]      bring the tables in a PostgreSQL schema up to date
  fob migrate -postgres-print [-schema NAME] [-from N]
                                                print the SQL of the migrations after number N instead
  fob migrate -sqlite FILE                      bring a SQLite file up to date
  fob grants [-schema NAME] [-read-only] ROLE   print what a PostgreSQL role needs to use the tables

With an empty URL everything is taken from the PG… environment variables. Other users can
see the command line, so put a password into PGPASSFILE or PGPASSWORD.
`

// The exit statuses, which are those of most commands.
const (
	done = iota
	failed
	misused
)

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	err := errUsage
	if len(args) > 0 {
		switch args[0] {
		case "migrate":
			err = migrate(ctx, args[1:], out)
		case "grants":
			err = grants(args[1:], out)
		case "help", "-h", "-help", "--help":
			fmt.Fprint(out, usage)
			return done
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
	case errors.Is(err, errUsage):
		fmt.Fprintf(errs, "fob: %v\n%s", err, usage)
		return misused
	case err != nil:
		fmt.Fprintf(errs, "fob: %v\n", err)
		return failed
	}
	return done
}

var errUsage = errors.New("what is to be done?")

// flags parses args. If they are wrong, the error is errUsage with the reason. It prints
// nothing, so that the caller prints the reason once.
func flags(set *flag.FlagSet, args []string) error {
	set.SetOutput(io.Discard)
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w %w", errUsage, err)
	}
	return nil
}

func migrate(ctx context.Context, args []string, out io.Writer) error {
	set := flag.NewFlagSet("migrate", flag.ContinueOnError)
	url := set.String("postgres", "", "")
	script := set.Bool("postgres-print", false, "")
	schema := set.String("schema", "", "")
	from := set.Int("from", 0, "")
	file := set.String("sqlite", "", "")
	if err := flags(set, args); err != nil {
		return err
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	targets := 0
	for _, name := range []string{"postgres", "postgres-print", "sqlite"} {
		if given[name] {
			targets++
		}
	}
	switch {
	case targets != 1 || set.NArg() > 0:
		return fmt.Errorf("%w one of -postgres, -postgres-print and -sqlite", errUsage)
	case given["from"] && !*script, given["schema"] && given["sqlite"]:
		return fmt.Errorf("%w -from goes with -postgres-print, -schema with PostgreSQL", errUsage)
	}
	opts := postgres.Options{Schema: *schema}
	switch {
	case *script:
		text, err := postgres.Script(opts, *from)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	case given["sqlite"]:
		return migrateFile(*file, out)
	}
	conn, err := pgx.Connect(ctx, *url) // its error does not contain the password
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the work is done, or its error is returned
	if err := postgres.Migrate(ctx, conn, opts); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the schema is at migration %d\n", postgres.SchemaVersion)
	return err
}

// migrateFile opens the store, which brings its file up to date.
func migrateFile(file string, out io.Writer) error {
	_, missing := os.Stat(file)
	// Only the application knows whether processes of its group may use the file, so the
	// permissions of the group stay as they are.
	store, err := sqlite.Open(file, sqlite.Options{InsecureGroupAccess: true})
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	if missing != nil {
		_, err = fmt.Fprintf(out, "%s was not there: it was made, is empty, and is up to date\n", file)
		return err
	}
	_, err = fmt.Fprintf(out, "%s is up to date\n", file)
	return err
}

func grants(args []string, out io.Writer) error {
	set := flag.NewFlagSet("grants", flag.ContinueOnError)
	schema := set.String("schema", "", "")
	readOnly := set.Bool("read-only", false, "")
	if err := flags(set, args); err != nil {
		return err
	}
	if set.NArg() != 1 || set.Arg(0) == "" {
		return fmt.Errorf("%w name one role", errUsage)
	}
	access := postgres.ReadWrite
	if *readOnly {
		access = postgres.ReadOnly
	}
	text, err := postgres.Grants(postgres.Options{Schema: *schema}, set.Arg(0), access)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}
