package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// AddUsage implements backend.UsageRecorder: one statement for the whole batch.
func (s *Store) AddUsage(ctx context.Context, batch []backend.Usage) error {
	// One row cannot be changed twice by one statement, and statements that change
	// rows in the same order never wait for each other in a circle.
	sums := make(map[backend.ID]backend.Usage, len(batch))
	for _, u := range batch {
		have := sums[u.ID]
		if u.N > math.MaxInt64 || have.N+u.N > math.MaxInt64 || u.Last < 0 {
			return fmt.Errorf("postgres: add usage: %w: a count beyond %d, or a negative time", backend.ErrInvalid, int64(math.MaxInt64))
		}
		sums[u.ID] = backend.Usage{ID: u.ID, N: have.N + u.N, Last: max(have.Last, u.Last)}
	}
	ids := make([][]byte, 0, len(sums))
	for id := range sums {
		ids = append(ids, id[:])
	}
	slices.SortFunc(ids, bytes.Compare)
	counts, lasts := make([]int64, len(ids)), make([]int64, len(ids))
	for i, id := range ids {
		u := sums[backend.ID(id)]
		counts[i], lasts[i] = int64(u.N), u.Last
	}
	return s.run(ctx, "add usage", stageWriting, 0, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, s.sql.addUsage, ids, counts, lasts)
		return err
	})
}

// Usage implements backend.UsageRecorder.
func (s *Store) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	asked := make([][]byte, len(ids))
	for i := range ids {
		asked[i] = ids[i][:]
	}
	found := make(map[backend.ID]backend.Usage, len(ids))
	err := s.run(ctx, "usage", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, s.sql.usage, asked)
		if err != nil {
			return err
		}
		var id []byte
		var n, last int64
		_, err = pgx.ForEachRow(rows, []any{&id, &n, &last}, func() error {
			if len(id) != len(backend.ID{}) || n < 0 {
				return fmt.Errorf("%w: usage of %x", backend.ErrCorrupt, id)
			}
			found[backend.ID(id)] = backend.Usage{N: uint64(n), Last: last}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]backend.Usage, len(ids))
	for i, id := range ids {
		out[i] = found[id]
		out[i].ID = id
	}
	return out, nil
}
