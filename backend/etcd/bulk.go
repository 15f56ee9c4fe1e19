package etcd

import (
	"context"

	"github.com/fobkit/fob/backend"
)

// GetMany implements backend.BulkReader: linearizable reads, a hundred in each
// transaction, and the transactions at the same time.
func (s *Store) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if err := backend.CheckGetMany(ids); err != nil {
		return nil, err
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	found, err := s.getMany(within, ids)
	return found, readFailure(ctx, "get many", err)
}

func (s *Store) getMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = s.keys.record(id)
	}
	kvs, err := s.fetch(ctx, names, 0)
	if err != nil {
		return nil, err
	}
	found := make([]backend.Record, 0, len(ids))
	for i, kv := range kvs {
		if kv == nil {
			continue
		}
		rec, err := decodeRecord(ids[i], kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		found = append(found, rec)
	}
	return found, nil
}

// scanAtOnce is how many records a Scan reads as of one revision, and hands on together.
const scanAtOnce = 4096

// Scan implements backend.Scanner. It walks the list of the kind, in which a record never
// moves, and reads each part of it as of a revision of its own: no history is needed that
// is older than a moment, and may have been compacted.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return err
	}
	q := backend.Query{Kind: kind}
	for {
		page, err := s.list(ctx, "scan", q, scanAtOnce)
		if err != nil {
			return err
		}
		if len(page.Records) > 0 {
			if err := fn(page.Records); err != nil {
				return err
			}
		}
		if q.After = page.Next; q.After == "" {
			return nil
		}
	}
}
