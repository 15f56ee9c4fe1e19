package postgres_test

import (
	"errors"
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

// The whole contract behind a PgBouncer in transaction mode, with the pool's
// statements as such a pooler needs them.
func TestContractBehindAPooler(t *testing.T) {
	pooler, err := server(t).Pooler(t.Context())
	if errors.Is(err, pgtest.ErrNoPooler) {
		t.Skip("the contract behind a pooler: ", err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, pooler.Close()) }()
	modes := map[string]pgx.QueryExecMode{"exec": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol}
	if testing.Short() {
		delete(modes, "exec")
	}
	for name, m := range modes {
		t.Run(name, func(t *testing.T) { contract(t, pooler.URL("postgres"), mode(m), backendtest.Options{}) })
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
