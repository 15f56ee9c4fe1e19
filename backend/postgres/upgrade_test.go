package postgres_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// The statements of a program that knows migration 1 alone.
const (
	insertOf1 = `
WITH turn AS MATERIALIZED (
  SELECT {turn}
), put AS (
  INSERT INTO {schema}.record (id, kind, owner, parent, created, expires, purge_at, version, body)
  SELECT $1::bytea, $2::smallint, $3::bytea, $4::bytea, $5::bigint, $6::bigint, $7::bigint, {version}, $8::bytea FROM turn
  ON CONFLICT (id) DO NOTHING
  RETURNING id, version
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT version FROM put`
	updateOf1 = `
WITH put AS (
  UPDATE {schema}.record SET expires = $6::bigint, purge_at = $7::bigint, body = $8::bytea, version = {version}
  WHERE id = $1::bytea AND version = $9::bigint
    AND kind = $2::smallint AND owner = $3::bytea AND parent IS NOT DISTINCT FROM $4::bytea AND created = $5::bigint
  RETURNING id, version
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT version, true, true FROM put
UNION ALL
SELECT version, false,
  kind = $2::smallint AND owner = $3::bytea AND parent IS NOT DISTINCT FROM $4::bytea AND created = $5::bigint
FROM {schema}.record WHERE id = $1::bytea AND NOT EXISTS (SELECT FROM put)`
	removeOf1 = `
WITH turn AS MATERIALIZED (
  SELECT {turn}
), gone AS (
  DELETE FROM {schema}.record WHERE id = $1::bytea AND version = $2::bigint AND EXISTS (SELECT FROM turn)
  RETURNING id
), unused AS (
  DELETE FROM {schema}.usage WHERE id = ANY (ARRAY(SELECT id FROM gone))
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT {version}, id FROM gone
)
SELECT 0::bigint, true FROM gone
UNION ALL
SELECT version, false FROM {schema}.record WHERE id = $1::bytea AND NOT EXISTS (SELECT FROM gone)`
	purgeOf1 = `
WITH due AS MATERIALIZED (
  SELECT id FROM {schema}.record WHERE purge_at > 0 AND purge_at <= $1::bigint
  ORDER BY purge_at LIMIT $2::int FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM {schema}.record r WHERE r.id = ANY (ARRAY(SELECT id FROM due))
    AND (r.purge_at > 0 AND r.purge_at <= $1::bigint) IS TRUE AND {tryturn:r}
  RETURNING r.id
), unused AS (
  DELETE FROM {schema}.usage WHERE id = ANY (ARRAY(SELECT id FROM gone))
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT {version}, id FROM gone
)
SELECT count(*) FROM gone`
)

// rowOf1 is a record as the arguments of insertOf1, and of updateOf1 but for the last.
func rowOf1(r backend.Record) []any {
	var parent []byte
	if r.Parent != (backend.ID{}) {
		parent = r.Parent[:]
	}
	return []any{r.ID[:], int16(r.Kind), []byte(r.Owner), parent, r.Created, r.Expires, r.PurgeAt, r.Body}
}

// placeOf1 is a schema with the tables of migration 1 and what a program of then wrote: n
// records.
func placeOf1(t *testing.T, n uint64) (p *place, all []backend.Record) {
	p = &place{url: server(t).URL("postgres"), schema: fmt.Sprint(`of 1 "`, one.schema.Add(1))}
	p.pool, p.link = newPool(t, p.url, nil)
	tables, err := os.ReadFile("migrations/0001.sql")
	require.NoError(t, err)
	_, err = p.pool.Exec(t.Context(), p.fill("CREATE SCHEMA {schema};"+string(tables)))
	require.NoError(t, err)
	var batch pgx.Batch
	for i := range n {
		r := record(i)
		if i%3 == 0 {
			r.Parent, r.Expires, r.PurgeAt = record(0).ID, r.Created+5, 1
		}
		batch.Queue(p.fill(insertOf1), rowOf1(r)...).QueryRow(func(row pgx.Row) error {
			err := row.Scan(&r.Version)
			all = append(all, r)
			return err
		})
	}
	first := record(0).ID
	batch.Queue(p.fill("INSERT INTO {schema}.usage VALUES ($1, 2, 3)"), first[:])
	require.NoError(t, p.pool.SendBatch(t.Context(), &batch).Close())
	return p, all
}

// pagesOf is the pages of a list, one after the other.
func pagesOf(t *testing.T, s *postgres.Store, q backend.Query) (all []backend.Record) {
	for {
		page, err := s.List(t.Context(), q)
		require.NoError(t, err)
		all = append(all, page.Records...)
		if q.After = page.Next; q.After == "" {
			return all
		}
	}
}

// labelRows is how many records are in lists by label, each as often as it is in one.
func (p *place) labelRows(t *testing.T) (n int) {
	require.NoError(t, p.pool.QueryRow(t.Context(), p.fill("SELECT count(*) FROM {schema}.label")).Scan(&n))
	return n
}

func TestTablesOfMigration1AreBroughtUp(t *testing.T) {
	const n = 500
	p, all := placeOf1(t, n)
	opts := postgres.Options{Schema: p.schema}
	_, err := postgres.New(t.Context(), p.pool, opts)
	require.ErrorContains(t, err, "is at migration 1, and 2 is needed: call Migrate")

	file := func() (name uint32) {
		require.NoError(t, p.pool.QueryRow(t.Context(), "SELECT pg_relation_filenode($1::text::regclass)", p.fill("{schema}.record")).Scan(&name))
		return name
	}
	before := file()
	require.NoError(t, postgres.Migrate(t.Context(), p.pool, opts))
	require.Equal(t, before, file(), "the table is not written again")

	s := p.open(t, postgres.Options{})
	require.Equal(t, all, pagesOf(t, s, backend.Query{Kind: 1, Limit: 1000}), "everything is as it was")
	scanned := 0
	require.NoError(t, s.Scan(t.Context(), 1, func(recs []backend.Record) error { scanned += len(recs); return nil }))
	require.Equal(t, n, scanned)
	usage, err := s.Usage(t.Context(), []backend.ID{all[0].ID})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: all[0].ID, N: 2, Last: 3}}, usage)

	// What is written from now on has labels, what was there gets them.
	again := all[1]
	again.Labels = []string{"a", "b"}
	v, err := s.Put(t.Context(), again, backend.IfVersion(again.Version))
	require.NoError(t, err)
	require.Greater(t, v, all[n-1].Version, "versions go on")
	again.Version = v
	plain := all[2]
	plain.Version, err = s.Put(t.Context(), plain, backend.IfVersion(plain.Version))
	require.NoError(t, err)
	added := record(n)
	added.Labels = []string{"b"}
	added.Version, err = s.Put(t.Context(), added, backend.IfAbsent())
	require.NoError(t, err)
	require.Equal(t, []backend.Record{again}, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))
	require.Equal(t, []backend.Record{added, again}, pagesOf(t, s, backend.Query{Kind: 1, Label: "b", Newest: true}))
	require.NoError(t, s.Delete(t.Context(), again.ID, again.Version))
	require.NoError(t, s.Delete(t.Context(), plain.ID, plain.Version))
	require.Empty(t, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))
	require.Equal(t, 1, p.labelRows(t))
}

// A program that was running when the schema was brought up goes on with what it can do
// right. The rest is refused, in words that name both migrations.
func TestAProgramOfMigration1BesideMigration2(t *testing.T) {
	p, all := placeOf1(t, 9)
	old, _ := newPool(t, p.url, func(c *pgxpool.Config) { c.MaxConns = 1 })
	// It has prepared its statements before the tables change.
	nobody := record(900).ID
	_, err := old.Exec(t.Context(), p.fill(removeOf1), nobody[:], 1)
	require.NoError(t, err)
	_, err = old.Exec(t.Context(), p.fill(purgeOf1), 0, 10)
	require.NoError(t, err)
	_, err = old.Exec(t.Context(), p.fill(updateOf1), append(rowOf1(record(900)), 1)...)
	require.NoError(t, err)
	require.NoError(t, postgres.Migrate(t.Context(), p.pool, postgres.Options{Schema: p.schema}))
	s := p.open(t, postgres.Options{})
	put := func(n uint64, purgeAt int64) backend.Record {
		rec := record(n)
		rec.PurgeAt, rec.Labels = purgeAt, []string{"a", "b"}
		rec.Version, err = s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
		return rec
	}
	listed, due := put(100, 0), put(101, 1)

	var version int64
	err = old.QueryRow(t.Context(), p.fill(insertOf1), rowOf1(record(200))...).Scan(&version)
	require.ErrorContains(t, err, "the tables are of migration 2, this program knows 1", "a record that it makes would have no labels")
	err, again := postgres.Verdict(context.Background(), postgres.Writing, err)
	require.ErrorIs(t, err, backend.ErrUnavailable, "what it answers: surely not written")
	require.False(t, again)

	for _, rec := range []*backend.Record{&all[0], &listed} { // it revokes
		before := rec.Version
		rec.Body = []byte("revoked")
		var done, same bool
		require.NoError(t, old.QueryRow(t.Context(), p.fill(updateOf1), append(rowOf1(*rec), int64(before))...).Scan(&version, &done, &same))
		require.True(t, done)
		rec.Version = uint64(version)
		got, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		require.Equal(t, *rec, got, "with the labels that it has")
	}
	require.Equal(t, []backend.Record{listed, due}, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))

	// What it deletes and purges is in no list any more.
	var done bool
	require.NoError(t, old.QueryRow(t.Context(), p.fill(removeOf1), listed.ID[:], int64(listed.Version)).Scan(&version, &done))
	require.True(t, done)
	n, err := s.Count(t.Context(), backend.Query{Kind: 1, Label: "b"}, 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	var purged int
	require.NoError(t, old.QueryRow(t.Context(), p.fill(purgeOf1), 1, 100).Scan(&purged))
	require.Equal(t, 1+len(all)/3, purged)
	require.Zero(t, p.labelRows(t))

	// Under another role it needs what Grants gives now, as the new one does.
	put(102, 0)
	role := fmt.Sprint("role ", one.schema.Add(1))
	grants, err := postgres.Grants(postgres.Options{Schema: p.schema}, role, postgres.ReadWrite)
	require.NoError(t, err)
	_, err = p.pool.Exec(t.Context(), "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN PASSWORD 'p'; "+
		strings.ReplaceAll(grants, p.fill(", {schema}.label"), ""))
	require.NoError(t, err)
	lesser, _ := newPool(t, server(t).URLAs(role, "p", "postgres"), nil)
	_, err = lesser.Exec(t.Context(), p.fill("DELETE FROM {schema}.record"))
	require.ErrorContains(t, err, "permission denied for table label")
	require.Equal(t, 2, p.labelRows(t))
}
