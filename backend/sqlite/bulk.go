package sqlite

import (
	"context"
	"database/sql"

	"github.com/fobkit/fob/backend"
)

// GetMany implements backend.BulkReader, in one statement.
func (s *Store) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if err := backend.CheckGetMany(ids); err != nil {
		return nil, err
	}
	asked := make([]byte, 0, len(ids)*len(backend.ID{}))
	for _, id := range ids {
		asked = append(asked, id[:]...)
	}
	var found []backend.Record
	err := s.read(ctx, "get many", func(c *conn) error {
		found = make([]backend.Record, 0, len(ids))
		return c.rows(sqlGetMany, []any{asked, len(ids)}, func(rows *sql.Rows) error {
			rec, err := scanRecord(rows)
			found = append(found, rec)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// scanAtOnce is how many records a Scan reads with one statement, and hands on together. It
// bounds the memory that a Scan takes. While a statement reads, the write-ahead log cannot
// be moved into the database and begun anew: one that read a whole kind would let it grow.
const scanAtOnce = 4096

// Scan implements backend.Scanner. It walks the list of the kind, in which a record never
// moves. fn is called between two statements: however long it takes, it is in nobody's way.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return err
	}
	var last backend.Record // its zero value is before all others
	for {
		recs, err := s.scan(ctx, kind, last)
		if err != nil {
			return err
		}
		if len(recs) == 0 {
			return nil
		}
		last = recs[len(recs)-1]
		if err := fn(recs); err != nil {
			return err
		}
		if len(recs) < scanAtOnce {
			return nil
		}
	}
}

// scan reads the records that follow one in the list of a kind.
func (s *Store) scan(ctx context.Context, kind backend.Kind, after backend.Record) (recs []backend.Record, err error) {
	args := []any{int64(kind), after.Created, after.ID[:], scanAtOnce}
	err = s.read(ctx, "scan", func(c *conn) error {
		recs = make([]backend.Record, 0, scanAtOnce)
		return c.rows(sqlListKind, args, func(rows *sql.Rows) error {
			rec, err := scanRecord(rows)
			recs = append(recs, rec)
			return err
		})
	})
	return recs, err
}
