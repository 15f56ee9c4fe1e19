package postgres

import (
	"context"
	"math"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

// purgeAtOnce is how many records one statement purges. It takes a lock for each,
// and the server's table of locks has room for some thousand of all its clients.
const purgeAtOnce = 100

// How much of the feed one statement trims, and how many of them one Purge makes;
// and how often a Purge trims at all. One process that purges keeps up with 8,000
// changes a second, made by all.
const (
	trimAtOnce  = 5000
	trimsAPurge = 100
	trimEvery   = time.Minute
)

// Purge implements backend.Purger: statements of a hundred records at most, in
// which records that others hold locked are left for the next time. Once a minute
// it also removes changes older than Options.Retention from the feed.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (gone int, err error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	for gone < limit {
		most, n := min(limit-gone, purgeAtOnce), 0
		err := s.run(ctx, "purge", stageWriting, 0, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, s.sql.purge, before.UnixMilli(), most).Scan(&n)
		})
		if err != nil {
			return gone, err
		}
		if n > 0 {
			s.announce()
		}
		gone += n
		if n < most {
			break
		}
	}
	now := time.Now().UnixNano()
	if next := s.nextTrim.Load(); now >= next && s.nextTrim.CompareAndSwap(next, now+int64(trimEvery)) {
		if err := s.trim(ctx, s.opts.Retention, trimsAPurge); err != nil {
			// The purge itself is done; the next one trims again.
			s.opts.Logger.Warn("postgres: the feed could not be trimmed", "error", err)
		}
	}
	return gone, nil
}

// Maintain implements backend.Maintainer: it removes all changes older than
// Options.Retention from the feed, a few thousand at a time. Vacuuming is the
// server's.
func (s *Store) Maintain(ctx context.Context) error {
	return s.trim(ctx, s.opts.Retention, math.MaxInt)
}

// trim removes old changes and, in the same statement, raises the floor below
// which a resuming Watch gets a Reset.
func (s *Store) trim(ctx context.Context, older time.Duration, most int) error {
	for range most {
		var n int
		err := s.run(ctx, "trim the feed", stageWriting, 0, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, s.sql.trim, older.Seconds(), trimAtOnce).Scan(&n)
		})
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}
