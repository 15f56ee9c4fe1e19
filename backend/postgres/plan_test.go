package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// fill writes n records in one statement: of kind 1, each owner and each parent
// with a hundred, all with an expiry and one in ten to be purged.
func fill(t testing.TB, p *place, n int) {
	t.Helper()
	opts := postgres.Options{Schema: p.schema}
	for _, sql := range []string{
		`INSERT INTO {schema}.record (id, kind, owner, parent, created, expires, purge_at, version, body, labels)
		 SELECT decode(md5(i::text), 'hex'), 1 + i % 2, convert_to('app-' || i / 200, 'UTF8'), decode(md5((i / 200)::text), 'hex'),
		   1700000000000 + i, 1800000000000 + i, CASE WHEN i % 10 = 0 THEN 1900000000000 + i ELSE 0 END, {version}, decode(repeat('5a', 200), 'hex'), ARRAY[convert_to('app-' || i / 200, 'UTF8')]
		 FROM generate_series(1, $1::int) i`,
		`INSERT INTO {schema}.label SELECT kind, pg_catalog.unnest(labels), created, id FROM {schema}.record WHERE $1::int > 0`,
		`INSERT INTO {schema}.usage SELECT decode(md5(i::text), 'hex'), 1, 1 FROM generate_series(1, $1::int / 10) i`,
		`INSERT INTO {schema}.change (txid, version, id) SELECT i, i, decode(md5(i::text), 'hex') FROM generate_series(1, $1::int) i`,
	} {
		_, err := p.pool.Exec(context.Background(), opts.Fill(sql), n)
		require.NoError(t, err)
	}
	for _, table := range []string{"record", "label", "usage", "change"} {
		_, err := p.pool.Exec(context.Background(), opts.Fill("VACUUM ANALYZE {schema}."+table))
		require.NoError(t, err)
	}
}

// Every statement finds what it wants by an index, whatever plan the server
// makes: for the parameters at hand, or once for all.
func TestEveryStatementUsesAnIndex(t *testing.T) {
	s, p := open(t, postgres.Options{})
	fill(t, p, 50_000)
	conn, err := p.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	id, none := `'\x`+strings.Repeat("07", 16)+`'`, `'\x'`
	statements := s.SQL()
	statements["page"] = statements["poll"]
	for name, c := range map[string]struct{ args, index string }{
		"get":       {id, "record_pkey"},
		"getMany":   {`ARRAY[` + id + `]::bytea[]`, "record_pkey"},
		"kind":      {"1, 101, 1700000000500, " + id, "record_kind"},
		"owner":     {"1, 101, -1, " + none + `, 'app-7'`, "record_owner"},
		"parent":    {"1, 101, -1, " + none + `, '\x` + strings.Repeat("07", 16) + `'`, "record_parent"},
		"due":       {"1, 101, -1, " + none + `, 1800000049000`, "record_expires"},
		"label":     {"1, 101, -1, " + none + `, 'app-7'`, "label_pkey"},
		"newest":    {"1, 101, 1700000040000, " + id, "record_kind"},
		"newestOf":  {"1, 101, 1900000040000, " + none + `, 'app-7'`, "label_pkey"},
		"count":     {"1, 1000, 'app-7'", "label_pkey"},
		"insert":    {id + `, 1, '', NULL, 1, 1, 1, '', '{a,b}'`, ""},
		"insertAll": {`ARRAY[` + id + `]::bytea[], '{1}', '{""}', '{NULL}', '{1}', '{1}', '{1}', '{""}', ARRAY[` + id + `]::bytea[], '{a}'`, ""},
		"update":    {id + `, 1, '', NULL, 1, 1, 1, '', 7, '{}'`, "record_pkey"},
		"relabel":   {id + `, 1, '', NULL, 1, 1, 1, '', 7, '{a}'`, "record_pkey"},
		"remove":    {id + `, 7`, "record_pkey"},
		"purge":     {`1900000050000, 1000`, "record_purge"},
		"usage":     {`ARRAY[` + id + `]::bytea[]`, "usage_pkey"},
		"trim":      {`86400, 5000`, "change_pkey"},
		"poll":      {`'{600}', 0, 0, 4611686018427387904, 0, 10000`, "change_pkey"},
		"page":      {`'{600}', 600, 600, 699, 0, 10000`, "change_pkey"},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				exec := func(sql string) {
					_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
					require.NoError(t, err)
				}
				exec("SET plan_cache_mode = " + mode)
				exec("PREPARE probe AS " + statements[name])
				defer exec("DEALLOCATE probe")
				rows, err := conn.Query(t.Context(), fmt.Sprintf("EXPLAIN EXECUTE probe (%s)", c.args), pgx.QueryExecModeSimpleProtocol)
				require.NoError(t, err)
				lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
				require.NoError(t, err)
				plan := strings.Join(lines, "\n")
				require.Contains(t, plan, c.index, plan)
				for _, table := range []string{"record", "label", "usage", "change"} {
					require.NotContains(t, plan, "Seq Scan on "+table, plan)
				}
				// Nor does it read more of the index than it needs: a page of a list is a
				// hundred rows.
				exec("BEGIN")
				rows, err = conn.Query(t.Context(), fmt.Sprintf("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE probe (%s)", c.args), pgx.QueryExecModeSimpleProtocol)
				require.NoError(t, err)
				lines, err = pgx.CollectRows(rows, pgx.RowTo[string])
				exec("ROLLBACK")
				require.NoError(t, err)
				var hit, read int
				_, after, found := strings.Cut(lines[1], "Buffers: shared ")
				require.True(t, found, lines[1])
				for field := range strings.FieldsSeq(after) {
					_, _ = fmt.Sscanf(field, "hit=%d", &hit)
					_, _ = fmt.Sscanf(field, "read=%d", &read)
				}
				most := 150
				if c.index == "label_pkey" && name != "count" {
					most = 500 // each record of the page is looked up by its ID
				}
				if name == "purge" || name == "trim" {
					most = 60_000 // many rows, each in several indexes
				}
				require.Less(t, hit+read, most, strings.Join(lines, "\n"))
				if c.index != "record_pkey" && strings.HasPrefix(c.index, "record_") && name != "purge" {
					require.NotContains(t, plan, "Sort", plan)
				}
			})
		}
	}
}
