package postgres

import (
	"context"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

var _ backend.Clock = (*Store)(nil)

// Now returns the time of the server's clock. It implements [backend.Clock].
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	err = s.run(ctx, "read the clock", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&now)
	})
	return now.UTC(), err
}
