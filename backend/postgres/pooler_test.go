package postgres_test

import (
	"errors"
	"os"
	"testing"

	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

func mode(m pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = m }
}

func simple(c *pgxpool.Config) { mode(pgx.QueryExecModeSimpleProtocol)(c) }

// Behind a PgBouncer in transaction mode everything works, in each mode of pgx that
// needs no session. With FOB_POSTGRES_POOLER=full that is the whole contract, for
// another minute or two.
func TestBehindAPooler(t *testing.T) {
	pooler, err := server(t).Pooler(t.Context())
	if errors.Is(err, pgtest.ErrNoPooler) {
		t.Skip("everything behind a pooler: ", err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, pooler.Close()) }()
	for name, m := range map[string]pgx.QueryExecMode{
		"exec": pgx.QueryExecModeExec, "simple protocol": pgx.QueryExecModeSimpleProtocol, "cache describe": pgx.QueryExecModeCacheDescribe,
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("FOB_POSTGRES_POOLER") == "full" {
				contract(t, pooler.URL("postgres"), mode(m), backendtest.Options{})
				return
			}
			for range 3 { // on sessions that others have used
				everything(t, newPlace(t, pooler.URL("postgres"), mode(m)))
			}
		})
	}
}

// Every mode of pgx, and every isolation level that a role may have as default.
func TestModes(t *testing.T) {
	set := func(name, value string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[name] = value }
	}
	for name, change := range map[string]func(*pgxpool.Config){
		"cache statement": mode(pgx.QueryExecModeCacheStatement),
		"cache describe":  mode(pgx.QueryExecModeCacheDescribe),
		"describe exec":   mode(pgx.QueryExecModeDescribeExec),
		"exec":            mode(pgx.QueryExecModeExec),
		"simple protocol": simple,
		"repeatable read": set("default_transaction_isolation", "repeatable read"),
		"serializable":    set("default_transaction_isolation", "serializable"),
		"generic plans":   set("plan_cache_mode", "force_generic_plan"),
		"escape bytea":    set("bytea_output", "escape"),
		"small pool":      func(c *pgxpool.Config) { c.MaxConns = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			everything(t, newPlace(t, server(t).URL("postgres"), change))
		})
	}
}
