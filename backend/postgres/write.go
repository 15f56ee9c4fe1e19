package postgres

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// Put implements backend.Store: one statement, one round trip; new records that
// come at the same time share both. Where a Put IfVersion has lost a race, a second
// one tells whether the record is still there.
//
// Versions come from one sequence. For an update, the number is drawn after the
// version that it replaces was seen, so it is higher. An insert has nothing to
// see: between its number and its check for a conflict, another session could
// create and delete the same ID with higher numbers. So inserts and deletes of one
// ID take turns, by an advisory lock until the end of the transaction, and draw
// their number within it.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	if v, ok := cond.Version(); ok {
		return s.update(ctx, &rec, v)
	}
	return s.insert(ctx, &rec)
}

func (s *Store) update(ctx context.Context, rec *backend.Record, v uint64) (uint64, error) {
	var version int64
	// A version beyond int64 is below zero, and no record's.
	err := s.run(ctx, "put", stageWriting, 0, func(ctx context.Context, conn *pgx.Conn) error {
		var done, same, alike bool
		args := updateOf(rec, v)
		err := conn.QueryRow(ctx, s.sql.update, args...).Scan(&version, &done, &same, &alike)
		switch {
		case err != nil:
			return ifNoRows(err, backend.ErrNotFound)
		case done:
			return nil
		case version != int64(v):
			return backend.ErrConflict
		case !same:
			return backend.CheckUpdate(backend.Record{}, backend.Record{Kind: 1}) // its words
		case !alike:
			if err := conn.QueryRow(ctx, s.sql.relabel, args...).Scan(&version); !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		return s.lost(ctx, conn, rec.ID)
	})
	if err != nil {
		return 0, err
	}
	s.announce(row{rec.ID, version})
	return uint64(version), nil
}

// lost says why a write changed nothing whose condition held in its snapshot:
// another one came first, and changed the record or removed it.
func (s *Store) lost(ctx context.Context, conn *pgx.Conn, id backend.ID) error {
	var there bool
	err := conn.QueryRow(ctx, s.sql.exists, id[:]).Scan(&there)
	if errors.Is(err, pgx.ErrNoRows) {
		return backend.ErrNotFound
	}
	return backend.ErrConflict // also if that could not be read: it is true in any case
}

// rowOf is a record as the arguments of a statement.
func rowOf(r *backend.Record) []any {
	return []any{r.ID[:], int16(r.Kind), []byte(r.Owner), parentOf(r), r.Created, r.Expires, r.PurgeAt, notNull(r.Body), labelsOf(r)}
}

// updateOf is a record as the arguments of an update of version v.
func updateOf(r *backend.Record, v uint64) []any {
	args := rowOf(r)
	labels := args[len(args)-1]
	return append(args[:len(args)-1], int64(v), labels)
}

// labelsOf is never NULL.
func labelsOf(r *backend.Record) [][]byte {
	labels := make([][]byte, len(r.Labels))
	for i, label := range r.Labels {
		labels[i] = []byte(label)
	}
	return labels
}

// parentOf is NULL for none.
func parentOf(rec *backend.Record) []byte {
	if rec.Parent == (backend.ID{}) {
		return nil
	}
	return rec.Parent[:]
}

// notNull is never NULL.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, id backend.ID, version uint64) error {
	err := s.run(ctx, "delete", stageWriting, 0, func(ctx context.Context, conn *pgx.Conn) error {
		var current int64
		var done bool
		err := conn.QueryRow(ctx, s.sql.remove, id[:], int64(version)).Scan(&current, &done)
		switch {
		case err != nil:
			return ifNoRows(err, backend.ErrNotFound)
		case done:
			return nil
		case current != int64(version):
			return backend.ErrConflict
		}
		return s.lost(ctx, conn, id)
	})
	if err != nil {
		return err
	}
	s.announce() // its number is in the feed alone
	return nil
}
