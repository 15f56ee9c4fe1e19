package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// newDatabase makes one and returns how to connect to it.
func newDatabase(t *testing.T, with string) (url string) {
	t.Helper()
	pool, _ := newPool(t, server(t).URL("postgres"), nil)
	name := fmt.Sprint("d", one.schema.Add(1))
	_, err := pool.Exec(t.Context(), "CREATE DATABASE "+name+" "+with)
	require.NoError(t, err)
	return server(t).URL(name)
}

// In a schema that everybody may create in, as "public" is up to PostgreSQL 14,
// anybody may have made a function that fits a call better than the server's own
// does. None of them is called: it would run with the rights of the owner in
// Migrate, and of the application in every write.
func TestFunctionsOfOthersAreNotCalled(t *testing.T) {
	url := newDatabase(t, "")
	pool, _ := newPool(t, url, nil)
	const body = " LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trap'; END $$"
	for _, sql := range []string{
		"CREATE FUNCTION public.hashtextextended(text, int) RETURNS bigint" + body,
		"CREATE FUNCTION public.concat_ws(text, uuid, oid, bigint, text, oid) RETURNS text" + body,
		"CREATE FUNCTION public.concat_ws(text, uuid, oid, oid) RETURNS text" + body,
		"CREATE FUNCTION public.make_interval(secs double precision) RETURNS interval" + body,
		"CREATE FUNCTION public.trap(bigint[], bigint) RETURNS bigint[]" + body,
		"CREATE FUNCTION public.trap(bytea[], bytea) RETURNS bytea[]" + body,
		"CREATE AGGREGATE public.array_agg(bigint) (SFUNC = public.trap, STYPE = bigint[])",
		"CREATE AGGREGATE public.array_agg(bytea) (SFUNC = public.trap, STYPE = bytea[])",
		"CREATE FUNCTION public.unnest(bytea[]) RETURNS SETOF bytea" + body,
		"CREATE FUNCTION public.cardinality(bytea[]) RETURNS int" + body,
		"CREATE FUNCTION public.unnest(bigint[]) RETURNS SETOF bigint" + body,
		"CREATE FUNCTION public.encode(bytea, varchar) RETURNS text" + body,
		"CREATE FUNCTION public.pg_notify(text, varchar) RETURNS void" + body,
		"CREATE FUNCTION public.to_regclass(varchar) RETURNS regclass" + body,
		"CREATE FUNCTION public.current_setting(varchar) RETURNS text" + body,
		"CREATE FUNCTION public.left(text, bigint) RETURNS text" + body,
		"CREATE FUNCTION public.nextval(bigint) RETURNS bigint" + body,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		everything(t, newPlace(t, url, mode(m)))
	}
}

// A database need not be in UTF-8; nothing that is stored is text.
func TestOtherEncodings(t *testing.T) {
	for _, encoding := range []string{"SQL_ASCII", "LATIN1", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			url := newDatabase(t, "ENCODING '"+encoding+"' TEMPLATE template0")
			everything(t, newPlace(t, url, nil))
			everything(t, newPlace(t, url, mode(pgx.QueryExecModeExec)))
			everything(t, newPlace(t, url, func(c *pgxpool.Config) {
				simple(c)
				c.ConnConfig.RuntimeParams["client_encoding"] = "UTF8" // pgx wants it in this mode
			}))
		})
	}
}

// Where backslashes mean something in a string, as in old applications, they mean
// nothing in the name of a schema.
func TestBackslashesInStrings(t *testing.T) {
	for _, setting := range []string{"on", "off"} {
		pool, _ := newPool(t, server(t).URL("postgres"), func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["standard_conforming_strings"] = setting
		})
		for i, name := range []string{`a\b`, `a\', now()::text); --`, `\`, `'`} {
			p := &place{url: server(t).URL("postgres"), schema: fmt.Sprint(name, setting, i), pool: pool}
			require.NoError(t, postgres.Migrate(t.Context(), pool, postgres.Options{Schema: p.schema}))
			everything(t, p)
		}
	}
}

// Migrations at the same time wait for each other, whatever isolation the role has
// as its default: with a snapshot from before the wait they would not see what the
// first has made.
func TestMigrateInOtherIsolation(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		pool, _ := newPool(t, server(t).URL("postgres"), func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		})
		opts := postgres.Options{Schema: freshSchema()}
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = postgres.Migrate(context.Background(), pool, opts) })
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err, level)
		}
	}
}

// With bytea_output=escape the bytes that come as text are not those that pgx reads:
// New says so, where Get would find every record damaged.
func TestBytesAsEscapedText(t *testing.T) {
	for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		p := newPlace(t, server(t).URL("postgres"), mode(m))
		p.pool, _ = newPool(t, p.url, func(c *pgxpool.Config) {
			mode(m)(c)
			c.ConnConfig.RuntimeParams["bytea_output"] = "escape"
		})
		_, err := postgres.New(t.Context(), p.pool, postgres.Options{Schema: p.schema})
		require.ErrorContains(t, err, "bytea_output=hex")
	}
}
