package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, id backend.ID) (rec backend.Record, err error) {
	if err := s.calls.Enter(ctx); err != nil {
		return backend.Record{}, err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return backend.Record{}, err
	}
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	return readRecord(txn, id)
}

// readRecord reads one record in a transaction.
func readRecord(txn *badgerdb.Txn, id backend.ID) (rec backend.Record, err error) {
	var key [1 + idLen]byte
	key[0] = prefixRecord
	copy(key[1:], id[:])
	item, err := txn.Get(key[:])
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return backend.Record{}, backend.ErrNotFound
	}
	if err == nil {
		// decode's own error, which is about the record, passes through.
		err = item.Value(func(val []byte) (err error) {
			rec, err = decodeRecord(id, val)
			return err
		})
	}
	return rec, readError(err)
}

// readError is a failure to read; ErrCorrupt is about the record itself.
func readError(err error) error {
	if err == nil || errors.Is(err, backend.ErrCorrupt) {
		return err
	}
	return fmt.Errorf("badger: read: %w: %w", backend.ErrUnavailable, err)
}

// dueBefore returns records whose PurgeAt has come, the oldest first. It steps over
// what is damaged: that must not keep everything after it.
func (s *Store) dueBefore(txn *badgerdb.Txn, before int64, limit int) ([]backend.Record, error) {
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: []byte{prefixDue}})
	defer it.Close()
	var due []backend.Record
	for it.Rewind(); it.Valid() && len(due) < limit; it.Next() {
		key := it.Item().Key()
		if len(key) != 1+8+idLen {
			return nil, backend.ErrCorrupt
		}
		at := int64(binary.BigEndian.Uint64(key[1:]))
		if at > before {
			break
		}
		id := backend.ID(key[9:])
		rec, err := readRecord(txn, id)
		if err != nil && !errors.Is(err, backend.ErrCorrupt) && !errors.Is(err, backend.ErrNotFound) {
			return nil, err
		}
		if err != nil || rec.PurgeAt != at { // or the index says what the record does not
			s.opts.Logger.Warn("badger: a damaged record cannot be purged", "id", fmt.Sprintf("%x", id))
			continue
		}
		due = append(due, rec)
	}
	return due, nil
}

// Usage implements backend.UsageRecorder.
func (s *Store) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	if err := s.calls.Enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return nil, err
	}
	out := make([]backend.Usage, len(ids))
	err := s.db.View(func(txn *badgerdb.Txn) (err error) {
		for i, id := range ids {
			if out[i], err = readUsage(txn, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, readError(err)
	}
	return out, nil
}

func readUsage(txn *badgerdb.Txn, id backend.ID) (u backend.Usage, err error) {
	item, err := txn.Get(usageKey(id))
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return backend.Usage{ID: id}, nil
	}
	if err == nil {
		err = item.Value(func(val []byte) (err error) {
			u, err = decodeUsage(id, val)
			return err
		})
	}
	return u, err
}
