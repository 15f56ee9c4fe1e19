package etcd

import (
	"context"

	"github.com/fobkit/fob/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// list is the list that a query walks: how its keys begin, and the range of them that it
// is about, without a cursor.
func (k keys) list(q *backend.Query) (list []byte, start, end string) {
	switch {
	case q.Owner != "":
		list = k.ownerList(q.Kind, q.Owner)
	case q.Parent != backend.ID{}:
		list = k.parentList(q.Kind, q.Parent)
	case q.Label != "":
		list = k.labelList(q.Kind, q.Label)
	case q.ExpiresBefore != 0:
		list = k.expiryList(q.Kind)
		return list, string(list), listKey(list, q.ExpiresBefore, backend.ID{})
	default:
		list = k.kindList(q.Kind)
	}
	return list, string(list), keyAfter(list)
}

// listing is a read of a list, begun again where what it reads is compacted under it.
func (s *Store) listing(ctx context.Context, what string, do func(context.Context) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	err := s.check(within)
	for try := 0; err == nil; try++ {
		if err = do(within); err == nil {
			return nil
		}
		if isCompacted(err) && try < compactionTries-1 {
			err = nil
		}
	}
	return readFailure(ctx, what, err)
}

// List implements backend.Lister. A page is read as of one revision.
func (s *Store) List(ctx context.Context, q backend.Query) (backend.Page, error) {
	limit, err := backend.CheckQuery(q)
	if err != nil {
		return backend.Page{}, err
	}
	at, id, err := q.After.Place(q)
	if err != nil {
		return backend.Page{}, err
	}
	var page backend.Page
	err = s.listing(ctx, "list", func(ctx context.Context) (err error) {
		page, err = s.page(ctx, q, limit, at, id)
		return err
	})
	return page, err
}

// page reads the keys of the list and then their records, both at the revision
// of the first read.
func (s *Store) page(ctx context.Context, q backend.Query, limit int, at int64, id backend.ID) (page backend.Page, err error) {
	list, start, end := s.keys.list(&q)
	var x index
	switch {
	case q.Newest:
		x, err = s.newest(ctx, list, end, q.After, at, id, limit)
	default:
		if q.After != "" {
			start = listKey(list, at, id) + "\x00" // just after it
		}
		if start >= end {
			return backend.Page{}, nil // a cursor past an edge that has moved back
		}
		x, err = s.index(ctx, list, start, end, limit)
	}
	if err != nil {
		return backend.Page{}, err
	}
	if page.Records, err = s.records(ctx, x.ids, x.revision); err != nil {
		return backend.Page{}, err
	}
	if x.more {
		page.Next = backend.NewCursor(q, x.last, x.ids[limit-1])
	}
	return page, nil
}

// index is a part of a list.
type index struct {
	ids      []backend.ID
	last     int64 // the time at which the last of ids is listed
	more     bool  // the list goes on
	revision int64 // at which this is so
}

// index reads the keys of a list in a range, at most limit.
func (s *Store) index(ctx context.Context, list []byte, start, end string, limit int) (index, error) {
	resp, err := s.read(ctx, start, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithKeysOnly())
	if err != nil {
		return index{}, err
	}
	x := index{ids: make([]backend.ID, len(resp.Kvs)), more: resp.More, revision: resp.Header.Revision}
	for i, kv := range resp.Kvs {
		if x.last, x.ids[i], err = parseListKey(list, kv.Key); err != nil {
			return index{}, err
		}
	}
	return x, nil
}

// Count implements backend.Counter. It is exact, whatever most is: etcd counts the keys of
// a range in its memory, some millions of them in a second, and sends their number alone.
func (s *Store) Count(ctx context.Context, q backend.Query, most int) (n int, err error) {
	if err := backend.CheckCount(q, most); err != nil {
		return 0, err
	}
	err = s.listing(ctx, "count", func(ctx context.Context) error {
		_, start, end := s.keys.list(&q)
		resp, err := s.read(ctx, start, clientv3.WithRange(end), clientv3.WithCountOnly())
		if err == nil {
			n = int(min(resp.Count, int64(most)))
		}
		return err
	})
	return n, err
}
