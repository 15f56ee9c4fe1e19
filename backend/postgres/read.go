package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// Get implements backend.Store. It reads from the primary alone: on a standby the
// statement fails.
func (s *Store) Get(ctx context.Context, id backend.ID) (rec backend.Record, err error) {
	err = s.run(ctx, "get", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		rec, err = scanRecord(conn.QueryRow(ctx, s.sql.get, id[:]))
		return ifNoRows(err, backend.ErrNotFound)
	})
	if err != nil {
		return backend.Record{}, err
	}
	return rec, nil
}

// scanRecord reads one record. What it returns shares no memory with the connection.
func scanRecord(row pgx.Row) (backend.Record, error) {
	var rec backend.Record
	var id, owner, parent []byte
	var kind int16
	var version int64
	var labels [][]byte
	err := row.Scan(&id, &kind, &owner, &parent, &rec.Created, &rec.Expires, &rec.PurgeAt, &version, &rec.Body, &labels)
	if err != nil {
		return backend.Record{}, err
	}
	// The table's constraints rule this out; who drops them shall not find zeros.
	if copy(rec.ID[:], id) != len(id) || len(id) != len(rec.ID) || kind < 1 || kind > 255 || version < 1 ||
		len(parent) != 0 && copy(rec.Parent[:], parent) != len(rec.Parent) {
		return backend.Record{}, fmt.Errorf("%w: record %x", backend.ErrCorrupt, id)
	}
	rec.Kind, rec.Owner, rec.Version = backend.Kind(kind), string(owner), uint64(version)
	for _, label := range labels {
		rec.Labels = append(rec.Labels, string(label))
	}
	return rec, nil
}

// List implements backend.Lister.
func (s *Store) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	limit, err := backend.CheckQuery(q)
	if err != nil {
		return backend.Page{}, err
	}
	at, id, err := q.After.Place(q)
	if err != nil {
		return backend.Page{}, err
	}
	place := id[:]
	switch {
	case q.After == "" && q.Newest:
		at, place = math.MaxInt64, bytes.Repeat([]byte{0xff}, len(id)+1) // above every ID, that of ones too
	case q.After == "":
		at = -1 // before the records of the epoch itself
	}
	statement, by := s.listOf(&q)
	args := append([]any{int16(q.Kind), limit + 1, at, place}, by...) // one more tells whether there is a next page
	var records []backend.Record
	err = s.run(ctx, "list", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		records, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (backend.Record, error) { return scanRecord(row) })
		return err
	})
	if err != nil {
		return backend.Page{}, err
	}
	if len(records) <= limit {
		return backend.Page{Records: records}, nil
	}
	last := &records[limit-1]
	after := last.Created
	if q.ExpiresBefore != 0 {
		after = last.Expires
	}
	return backend.Page{Records: records[:limit:limit], Next: backend.NewCursor(q, after, last.ID)}, nil
}

// listOf is the statement that reads a page of a list, and what it compares.
func (s *Store) listOf(q *backend.Query) (statement string, by []any) {
	oldest, newest := s.sql.listKind, s.sql.newestKind
	switch {
	case q.Owner != "":
		oldest, newest, by = s.sql.listOwner, s.sql.newestOwner, []any{[]byte(q.Owner)}
	case q.Parent != backend.ID{}:
		oldest, newest, by = s.sql.listParent, s.sql.newestParent, []any{q.Parent[:]}
	case q.Label != "":
		oldest, newest, by = s.sql.listLabel, s.sql.newestLabel, []any{[]byte(q.Label)}
	case q.ExpiresBefore != 0:
		oldest, by = s.sql.listDue, []any{q.ExpiresBefore}
	}
	if q.Newest {
		return newest, by
	}
	return oldest, by
}

// Count implements backend.Counter.
func (s *Store) Count(ctx context.Context, q backend.Query, most int) (n int, err error) {
	if err := backend.CheckCount(q, most); err != nil {
		return 0, err
	}
	_, by := s.listOf(&q)
	statement := s.sql.countKind
	switch {
	case q.Owner != "":
		statement = s.sql.countOwner
	case q.Parent != backend.ID{}:
		statement = s.sql.countParent
	case q.Label != "":
		statement = s.sql.countLabel
	case q.ExpiresBefore != 0:
		statement = s.sql.countDue
	}
	err = s.run(ctx, "count", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, statement, append([]any{int16(q.Kind), min(most, math.MaxInt32)}, by...)...).Scan(&n)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
