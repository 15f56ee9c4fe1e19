package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// GetMany implements backend.BulkReader: one statement, from the primary alone.
func (s *Store) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if err := backend.CheckGetMany(ids); err != nil {
		return nil, fmt.Errorf("postgres: get many: %w", err)
	}
	asked := make([][]byte, len(ids))
	for i := range ids {
		asked[i] = ids[i][:]
	}
	var found []backend.Record
	err := s.run(ctx, "get many", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		found = make([]backend.Record, 0, len(ids))
		rows, err := conn.Query(ctx, s.sql.getMany, asked)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			rec, err := readRecord(rows)
			if err != nil {
				return err
			}
			found = append(found, rec)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// A Scan hands out at most so many records at once, and so many bytes of bodies.
const (
	scanAtOnce = 1000
	scanBytes  = 1 << 20
)

// Scan implements backend.Scanner: one statement, whose answer it reads as fast as fn
// takes it. It holds a connection of the pool, and the server a snapshot, until it ends.
// Where ctx has no deadline, Options.StatementTimeout bounds each wait for the server, and
// not the whole.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return fmt.Errorf("postgres: scan: %w", err)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(s.life, cancel) // it may be long, and Close does not wait for all of it
	defer unhook()
	patience := s.opts.StatementTimeout
	if _, bounded := ctx.Deadline(); bounded {
		patience = math.MaxInt64
	}
	watch := time.AfterFunc(patience, cancel)
	defer watch.Stop()
	var batch []backend.Record
	var bytes int
	var mine error // fn's
	told := false
	hand := func() error {
		if len(batch) == 0 {
			return nil
		}
		watch.Stop()
		told = true
		mine = fn(batch)
		batch, bytes = make([]backend.Record, 0, scanAtOnce), 0
		watch.Reset(patience)
		return mine
	}
	for n := 1; ; n++ {
		at, err := s.once(within, stageReading, func(ctx context.Context, conn *pgx.Conn) error {
			batch, bytes = make([]backend.Record, 0, scanAtOnce), 0
			rows, err := conn.Query(ctx, s.sql.scan, int16(kind))
			if err != nil {
				return err
			}
			whole := false
			defer func() {
				if !whole {
					cancel() // to close it now would read the rest
				}
				rows.Close()
			}()
			for rows.Next() {
				rec, err := readRecord(rows)
				if err != nil {
					return err
				}
				batch, bytes = append(batch, rec), bytes+len(rec.Body)
				if len(batch) == scanAtOnce || bytes >= scanBytes {
					if err := hand(); err != nil {
						return err
					}
				}
			}
			whole = true
			if err := rows.Err(); err != nil {
				return err
			}
			return hand()
		})
		switch {
		case err == nil || mine != nil:
			return mine
		case s.life.Err() != nil:
			return backend.ErrClosed
		}
		mapped, again := verdict(ctx, "scan", at, err)
		if told || !again || n >= maxTries || within.Err() != nil {
			return mapped
		}
	}
}

// readRecord reads the record of a row. It shares no memory with the connection.
func readRecord(rows pgx.Rows) (backend.Record, error) {
	for i, f := range rows.FieldDescriptions() {
		if f.Format != pgx.BinaryFormatCode || f.DataTypeOID != recordOIDs[i] {
			return scanRecord(rows)
		}
	}
	v := rows.RawValues()
	if len(v[0]) != len(backend.ID{}) || len(v[3]) != 0 && len(v[3]) != len(backend.ID{}) || len(v[9]) != noLabels {
		return scanRecord(rows) // which says what is wrong, and reads labels
	}
	rec := backend.Record{
		ID: backend.ID(v[0]), Kind: backend.Kind(binary.BigEndian.Uint16(v[1])), Owner: string(v[2]),
		Created: number(v[4]), Expires: number(v[5]), PurgeAt: number(v[6]), Version: uint64(number(v[7])), Body: append([]byte{}, v[8]...),
	}
	copy(rec.Parent[:], v[3])
	if int64(rec.Version) < 1 || binary.BigEndian.Uint16(v[1])-1 > 254 {
		return scanRecord(rows)
	}
	return rec, nil
}

// noLabels is the length of an array of no elements: the numbers of its dimensions and flags,
// and the type of its elements.
const noLabels = 12

func number(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// recordOIDs are the types of the columns of a record.
var recordOIDs = [...]uint32{
	pgtype.ByteaOID, pgtype.Int2OID, pgtype.ByteaOID, pgtype.ByteaOID,
	pgtype.Int8OID, pgtype.Int8OID, pgtype.Int8OID, pgtype.Int8OID, pgtype.ByteaOID, pgtype.ByteaArrayOID,
}
