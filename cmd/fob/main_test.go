package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// built is the program as a user builds it, made once for all tests.
var built struct {
	exe string
	out []byte
	err error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fob-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.exe = filepath.Join(dir, "program")
	built.out, built.err = exec.Command("go", "build", "-o", built.exe, ".").CombinedOutput()
	code := m.Run()
	_ = os.RemoveAll(dir) // a temporary folder
	os.Exit(code)
}

// build returns how to run it.
func build(t *testing.T) func(args ...string) (out, errs string, status int) {
	t.Helper()
	require.NoError(t, built.err, "%s", built.out)
	return func(args ...string) (string, string, int) {
		var out, errs strings.Builder
		cmd := exec.Command(built.exe, args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			require.NoError(t, err)
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
}

func TestMisuse(t *testing.T) {
	fob := build(t)
	for _, args := range [][]string{
		nil, {"mint"}, {"migrate"}, {"migrate", "-postgres", "x", "-sqlite", "y"}, {"migrate", "-sqlite", "x", "-schema", "y"}, {"migrate", "-sqlite", "x", "y"},
		{"migrate", "-postgres", "x", "-from", "1"}, {"migrate", "-nonsense"}, {"grants"}, {"grants", ""}, {"grants", "a", "b"},
	} {
		out, errs, status := fob(args...)
		require.Equal(t, 2, status, args)
		require.Empty(t, out)
		require.Contains(t, errs, "usage:")
	}
	for _, args := range [][]string{{"help"}, {"migrate", "-h"}} {
		out, errs, status := fob(args...)
		require.Zero(t, status)
		require.Contains(t, out, "usage:")
		require.Empty(t, errs)
	}
	_, errs, status := fob("migrate", "-postgres", "postgres://ann:hush@127.0.0.1:1/x?connect_timeout=1")
	require.Equal(t, 1, status)
	require.NotContains(t, errs, "hush")
	_, _, status = fob("migrate", "-postgres-print", "-from", "999")
	require.Equal(t, 1, status)
	_, _, status = fob("grants", "-schema", "pg_x", "app")
	require.Equal(t, 1, status)
}

func TestAFile(t *testing.T) {
	fob := build(t)
	file := filepath.Join(t.TempDir(), "fob.db")
	for again := range 2 {
		out, errs, status := fob("migrate", "-sqlite", file)
		require.Zero(t, status, errs)
		require.Contains(t, out, "up to date")
		require.Equal(t, again == 0, strings.Contains(out, "was not there"), "a name that is wrong is not passed over")
	}
	store, err := sqlite.Open(file, sqlite.Options{})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600))
	_, errs, status := fob("migrate", "-sqlite", file)
	require.Equal(t, 1, status)
	require.NotEmpty(t, errs)
}

// The SQL that the command prints is enough: an owner runs it, and then the application works.
func TestAServer(t *testing.T) {
	ctx := context.Background()
	server, err := pgtest.Start(ctx, pgtest.Config{})
	if errors.Is(err, pgtest.ErrNoServer) {
		t.Skipf("not on PostgreSQL: %v", err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	fob := build(t)
	owner, err := pgxpool.New(ctx, server.URL("postgres"))
	require.NoError(t, err)
	defer owner.Close()
	_, err = owner.Exec(ctx, "CREATE ROLE app LOGIN PASSWORD 'app'")
	require.NoError(t, err)

	for range 2 {
		out, errs, status := fob("migrate", "-postgres", server.URL("postgres"), "-schema", "keys")
		require.Zero(t, status, errs)
		require.Contains(t, out, "migration 2")
	}
	script, errs, status := fob("migrate", "-postgres-print", "-schema", "by hand")
	require.Zero(t, status, errs)
	_, err = owner.Exec(ctx, script)
	require.NoError(t, err)
	app, err := pgxpool.New(ctx, server.URLAs("app", "app", "postgres"))
	require.NoError(t, err)
	defer app.Close()
	for _, schema := range []string{"keys", "by hand"} {
		text, errs, status := fob("grants", "-schema", schema, "app")
		require.Zero(t, status, errs)
		_, err = owner.Exec(ctx, text)
		require.NoError(t, err)
		store, err := postgres.New(ctx, app, postgres.Options{Schema: schema})
		require.NoError(t, err)
		_, err = store.Put(ctx, backend.Record{ID: backend.ID{1}, Kind: 1}, backend.IfAbsent())
		require.NoError(t, err)
		require.NoError(t, store.Close())
	}
}
