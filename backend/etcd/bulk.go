package etcd

import (
	"context"
	"slices"

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
	kvs, err := s.fetch(ctx, s.keys.all(ids), 0)
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

const (
	// scanAtOnce is how many records a Scan hands on together.
	scanAtOnce = 4096
	// listAtOnce is how many keys of the list it reads at once. It is much more, for with
	// each part of a range a server counts what is left of all of it.
	listAtOnce = 1 << 16
)

// Scan implements backend.Scanner. It walks the list of the kind, in which a record never
// moves, and reads each part of it as of a revision of its own. Where that is compacted
// under it, it goes on from where it is, at a later one.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return err
	}
	list := s.keys.kindList(kind)
	start, end := string(list), keyAfter(list)
	for compacted := 0; ; {
		var x index
		err := s.scanning(ctx, func(ctx context.Context) (err error) {
			if err = s.check(ctx); err == nil {
				x, err = s.index(ctx, list, start, end, listAtOnce)
			}
			return err
		})
		for ids := range slices.Chunk(x.ids, scanAtOnce) {
			var recs []backend.Record
			if err = s.scanning(ctx, func(ctx context.Context) (err error) {
				recs, err = s.records(ctx, ids, x.revision)
				return err
			}); err != nil {
				break
			}
			last := &recs[len(recs)-1]
			start = listKey(list, last.Created, last.ID) + "\x00" // just after it
			if err := fn(recs); err != nil {
				return err
			}
			compacted = 0
		}
		switch {
		case isCompacted(err) && compacted < compactionTries:
			compacted++
		case err != nil:
			return err
		case !x.more:
			return nil
		}
	}
}

// scanning is a part of a Scan, with a time of its own.
func (s *Store) scanning(ctx context.Context, do func(context.Context) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	return readFailure(ctx, "scan", do(within))
}
