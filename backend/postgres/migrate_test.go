package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

func freshSchema() string { return fmt.Sprint("m", one.schema.Add(1)) }

func TestMigrateOftenAndAtTheSameTime(t *testing.T) {
	pool, _ := newPool(t, server(t).URL("postgres"), nil)
	opts := postgres.Options{Schema: freshSchema()}
	var wrong *postgres.SchemaError
	_, err := postgres.New(t.Context(), pool, opts)
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, postgres.SchemaError{Schema: opts.Schema, Want: postgres.SchemaVersion}, *wrong)
	require.ErrorContains(t, err, "call Migrate")

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = postgres.Migrate(context.Background(), pool, opts) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	s, err := postgres.New(t.Context(), pool, opts)
	require.NoError(t, err)
	v := create(t, s, 1)
	require.NoError(t, postgres.Migrate(t.Context(), pool, opts))
	got, err := s.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
	require.Equal(t, v, got.Version, "migrating again changes nothing")
	require.NoError(t, s.Close())

	conn, err := pgx.Connect(t.Context(), server(t).URL("postgres"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	require.NoError(t, postgres.Migrate(t.Context(), conn, opts), "on a connection too")

	_, err = pool.Exec(t.Context(), opts.Fill("INSERT INTO ")+opts.Schema+".migration (number) VALUES (999)")
	require.NoError(t, err)
	_, err = postgres.New(t.Context(), pool, opts)
	for _, err := range []error{err, postgres.Migrate(t.Context(), pool, opts)} {
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, 999, wrong.Have)
		require.ErrorContains(t, err, "use a newer version")
	}
}

// A migration that fails leaves nothing behind.
func TestMigrateIsWhole(t *testing.T) {
	pool, _ := newPool(t, server(t).URL("postgres"), nil)
	opts := postgres.Options{Schema: freshSchema()}
	_, err := pool.Exec(t.Context(), "CREATE SCHEMA "+opts.Schema+"; CREATE TABLE "+opts.Schema+".usage ()")
	require.NoError(t, err)
	require.ErrorContains(t, postgres.Migrate(t.Context(), pool, opts), "migration 1")
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = $1::text", opts.Schema).Scan(&n))
	require.Equal(t, 1, n)
}

func TestScriptForOtherTools(t *testing.T) {
	pool, _ := newPool(t, server(t).URL("postgres"), nil)
	opts := postgres.Options{Schema: `O"Brien's $1 \`}
	text, err := postgres.Script(opts, 0)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), text)
	require.NoError(t, err)
	p := &place{url: server(t).URL("postgres"), schema: opts.Schema, pool: pool}
	everything(t, p)
	require.NoError(t, postgres.Migrate(t.Context(), pool, opts))
	nothing, err := postgres.Script(opts, postgres.SchemaVersion)
	require.NoError(t, err)
	require.Empty(t, nothing)
	for _, from := range []int{-1, postgres.SchemaVersion + 1} {
		_, err = postgres.Script(opts, from)
		require.Error(t, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		opts postgres.Options
		want string
	}{
		"long":       {postgres.Options{Schema: strings.Repeat("s", 56)}, "56 bytes"},
		"nul":        {postgres.Options{Schema: "a\x00"}, "not valid text"},
		"not utf-8":  {postgres.Options{Schema: "\xff"}, "not valid text"},
		"pg_":        {postgres.Options{Schema: "pg_fob"}, "PostgreSQL's own"},
		"poll":       {postgres.Options{PollInterval: time.Second}, "5ms to 100ms"},
		"timeout":    {postgres.Options{StatementTimeout: -1}, "StatementTimeout"},
		"retention":  {postgres.Options{Retention: time.Second}, "at least 1m"},
		"everything": {postgres.Options{Schema: "pg_", PollInterval: 1, Retention: 1}, "Retention is 1ns"},
	} {
		_, err := postgres.New(t.Context(), nil, c.opts)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, postgres.Migrate(t.Context(), nil, c.opts), c.want, name)
	}
	_, err := postgres.Grants(postgres.Options{}, "r", 0)
	require.Error(t, err)
}

// Roles that have what Grants gives, and nothing else, can do what they are for.
func TestLeastPrivilege(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	as := func(access postgres.Access) *place {
		role := fmt.Sprint("role ", one.schema.Add(1))
		grants, err := postgres.Grants(postgres.Options{Schema: p.schema}, role, access)
		require.NoError(t, err)
		name := pgx.Identifier{role}.Sanitize()
		_, err = p.pool.Exec(t.Context(), "CREATE ROLE "+name+" LOGIN PASSWORD 'p'; "+grants)
		require.NoError(t, err)
		q := *p
		q.url = server(t).URLAs(role, "p", "postgres")
		q.pool, q.link = newPool(t, q.url, nil)
		return &q
	}
	app, verify := as(postgres.ReadWrite), as(postgres.ReadOnly)
	everything(t, app)
	writer, reader := app.open(t, postgres.Options{}), verify.open(t, postgres.Options{})
	w := follow(t, reader, nil)
	v := create(t, writer, 1)
	w.sees(t, 1, v)
	resumed := follow(t, writer, w.token())
	require.Zero(t, look(resumed, func() int { return resumed.resets }), "a token is good for every role")
	require.NoError(t, writer.TrimOlder(t.Context(), -time.Hour))
	got, err := reader.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
	page, err := reader.List(t.Context(), backend.Query{Kind: 1, Owner: got.Owner})
	require.NoError(t, err)
	require.Equal(t, []backend.Record{got}, page.Records)
	_, err = reader.Usage(t.Context(), []backend.ID{got.ID})
	require.NoError(t, err)

	_, err = reader.Put(t.Context(), got, backend.IfVersion(got.Version))
	_, purgeErr := reader.Purge(t.Context(), time.UnixMilli(1), 1)
	for name, err := range map[string]error{
		"put": err, "purge": purgeErr, "delete": reader.Delete(t.Context(), got.ID, got.Version),
		"usage": reader.AddUsage(t.Context(), []backend.Usage{{ID: got.ID, N: 1}}), "maintain": reader.Maintain(t.Context()),
	} {
		require.ErrorIs(t, err, backend.ErrUnavailable, name)
		require.ErrorContains(t, err, "see Grants", name)
	}
	for _, sql := range []string{"DROP TABLE {schema}.usage", "TRUNCATE {schema}.record", "UPDATE {schema}.meta SET instance = gen_random_uuid()",
		"INSERT INTO {schema}.migration VALUES (2)", "UPDATE {schema}.change SET version = 0", "CREATE TABLE {schema}.x ()"} {
		_, err := app.pool.Exec(t.Context(), p.fill(sql))
		require.ErrorContains(t, err, "42501", sql)
	}
	stranger, _ := newPool(t, server(t).URL("postgres"), func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = "pg_monitor" })
	_, err = postgres.New(t.Context(), stranger, postgres.Options{Schema: p.schema})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "see Grants")
}
