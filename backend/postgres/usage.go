package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

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
	return s.run(ctx, "add usage", writing, s.opts.StatementTimeout, func(ctx context.Context, conn *pgx.Conn) error {
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
	err := s.run(ctx, "usage", reading, s.opts.StatementTimeout, func(ctx context.Context, conn *pgx.Conn) error {
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

// How much of the feed one statement trims, and how many of them one Purge makes;
// and how often a Purge trims at all.
const (
	trimAtOnce  = 5000
	trimsAPurge = 10
	trimEvery   = time.Minute
)

// Purge implements backend.Purger: one statement, in which records that others
// hold locked are left for the next time. Once a minute it also removes changes
// older than Options.Retention from the feed.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	var n int
	err := s.run(ctx, "purge", writing, s.opts.StatementTimeout, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, s.sql.purge, before.UnixMilli(), limit).Scan(&n)
	})
	if err != nil {
		return 0, err
	}
	if n > 0 {
		s.announce()
	}
	now := time.Now().UnixNano()
	if next := s.nextTrim.Load(); now >= next && s.nextTrim.CompareAndSwap(next, now+int64(trimEvery)) {
		if err := s.trim(ctx, trimsAPurge); err != nil {
			// The purge itself is done; the next one trims again.
			s.opts.Logger.Warn("postgres: the feed could not be trimmed", "error", err)
		}
	}
	return n, nil
}

// Maintain implements backend.Maintainer: it removes all changes older than
// Options.Retention from the feed, a few thousand at a time. Vacuuming is the
// server's.
func (s *Store) Maintain(ctx context.Context) error { return s.trim(ctx, math.MaxInt) }

// trim removes old changes and, in the same statement, raises the floor below
// which a resuming Watch gets a Reset.
func (s *Store) trim(ctx context.Context, most int) error {
	for range most {
		var n int
		err := s.run(ctx, "trim the feed", writing, s.opts.StatementTimeout, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, s.sql.trim, s.opts.Retention.Seconds(), trimAtOnce).Scan(&n)
		})
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}
