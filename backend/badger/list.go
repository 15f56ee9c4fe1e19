package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// listOf is how the keys of the list begin that a query walks.
func listOf(q *backend.Query) []byte {
	switch {
	case q.Owner != "":
		return ownerList(q.Kind, q.Owner)
	case q.Parent != backend.ID{}:
		return parentList(q.Kind, q.Parent)
	case q.Label != "":
		return labelList(q.Kind, q.Label)
	case q.ExpiresBefore != 0:
		return expiryList(q.Kind)
	}
	return kindList(q.Kind)
}

// walk calls yield with the places of the list that q asks for, from q.After on, in its
// order, until yield says that it is enough.
func walk(txn *badgerdb.Txn, q *backend.Query, yield func(at int64, id backend.ID) (more bool, err error)) error {
	at, id, err := q.After.Place(*q)
	if err != nil {
		return err
	}
	list := listOf(q)
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: list, Reverse: q.Newest})
	defer it.Close()
	start := listKey(list[:len(list):len(list)], at, id)
	switch {
	case q.Newest && q.After == "":
		start = listKey(list[:len(list):len(list)], -1, id) // above every time that a record can have
	case q.After != "" && !q.Newest:
		start = append(start, 0) // just after it
	}
	it.Seek(start)
	if q.Newest && q.After != "" && it.Valid() && string(it.Item().Key()) == string(start) {
		it.Next() // just before it
	}
	for ; it.Valid(); it.Next() {
		key := it.Item().Key()
		if len(key) != len(list)+8+idLen {
			return backend.ErrCorrupt
		}
		at := int64(binary.BigEndian.Uint64(key[len(list):]))
		if q.ExpiresBefore != 0 && at >= q.ExpiresBefore {
			return nil
		}
		if more, err := yield(at, backend.ID(key[len(list)+8:])); !more || err != nil {
			return err
		}
	}
	return nil
}

// listing is a read of a list, in one transaction.
func (s *Store) listing(ctx context.Context, what string, do func(*badgerdb.Txn) error) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return err
	}
	err := s.db.View(do)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("badger: %s: %w", what, ctx.Err())
	}
	return readError(err)
}

// List implements backend.Lister. The newest first costs what the oldest first does.
func (s *Store) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	limit, err := backend.CheckQuery(q)
	if err != nil {
		return backend.Page{}, err
	}
	if _, _, err := q.After.Place(q); err != nil {
		return backend.Page{}, err
	}
	var page backend.Page
	err = s.listing(ctx, "list", func(txn *badgerdb.Txn) error {
		var lastAt int64
		var last backend.ID
		return walk(txn, &q, func(at int64, id backend.ID) (bool, error) {
			if len(page.Records) == limit {
				page.Next = backend.NewCursor(q, lastAt, last)
				return false, nil
			}
			rec, err := readRecord(txn, id)
			if errors.Is(err, backend.ErrNotFound) {
				err = backend.ErrCorrupt // the two are written together, so neither is there alone
			}
			if err != nil {
				return false, err
			}
			page.Records = append(page.Records, rec)
			lastAt, last = at, id
			return true, ctx.Err()
		})
	})
	if err != nil {
		return backend.Page{}, err
	}
	return page, nil
}

// lookUpEvery is after how many places Count looks whether its context has ended.
const lookUpEvery = 1024

// Count implements backend.Counter. It passes the keys of the list, up to most of them, and
// reads no record: about 4 million a second.
func (s *Store) Count(ctx context.Context, q backend.Query, most int) (n int, err error) {
	if err := backend.CheckCount(q, most); err != nil {
		return 0, err
	}
	err = s.listing(ctx, "count", func(txn *badgerdb.Txn) error {
		return walk(txn, &q, func(int64, backend.ID) (bool, error) {
			if n++; n%lookUpEvery == 0 && ctx.Err() != nil {
				return false, ctx.Err()
			}
			return n < most, nil
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
