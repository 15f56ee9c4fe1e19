package etcd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Get implements backend.Store: one linearizable read.
func (s *Store) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if err := s.enter(ctx); err != nil {
		return backend.Record{}, err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	rec, err := s.get(within, id)
	return rec, readFailure(ctx, "get", err)
}

func (s *Store) get(ctx context.Context, id backend.ID) (backend.Record, error) {
	resp, err := s.read(ctx, s.keys.record(id))
	if err != nil {
		return backend.Record{}, err
	}
	rec, err := soleRecord(id, resp.Kvs)
	if err == nil {
		s.recent.note(rec)
	}
	return rec, err
}

// read is a Get of etcd, in as many attempts as there is time for.
func (s *Store) read(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	for {
		once, cancel := s.attempt(ctx)
		resp, err := s.kv.Get(once, key, opts...)
		cancel()
		if err == nil || !waitToRetry(ctx, err) {
			return resp, err
		}
	}
}

// soleRecord is the record that a read of its key has found.
func soleRecord(id backend.ID, kvs []*mvccpb.KeyValue) (backend.Record, error) {
	if len(kvs) == 0 {
		return backend.Record{}, backend.ErrNotFound
	}
	return decodeRecord(id, kvs[0].Value, kvs[0].ModRevision)
}

const (
	// readsAtOnce is how many keys one transaction reads, below the 128 operations that a
	// server allows by default.
	readsAtOnce = 100
	// fetchers is how many such transactions are on their way at the same time: as many as
	// a GetMany may need.
	fetchers = backend.MaxLimit / readsAtOnce
)

// fetch reads keys as they were at a revision, in their order; nil for one that
// was not there. Revision 0 is now, and not the same instant for all.
func (s *Store) fetch(ctx context.Context, all []string, revision int64) ([]*mvccpb.KeyValue, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make([]*mvccpb.KeyValue, len(all))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(fetchers, (len(all)+readsAtOnce-1)/readsAtOnce) {
		wg.Go(func() {
			for {
				end := int(next.Add(readsAtOnce))
				from := end - readsAtOnce
				if from >= len(all) || ctx.Err() != nil {
					return
				}
				if err := s.fetchSome(ctx, all[from:min(end, len(all))], revision, out[from:]); err != nil {
					cancel(err) // the first one is why
					return
				}
			}
		})
	}
	wg.Wait()
	return out, context.Cause(ctx)
}

// fetchSome is a part of fetch in one transaction.
func (s *Store) fetchSome(ctx context.Context, keys []string, revision int64, out []*mvccpb.KeyValue) error {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(key, clientv3.WithRev(revision))
	}
	resp, err := s.readAll(ctx, ops)
	if err != nil {
		return err
	}
	for i, r := range resp.Responses {
		out[i] = firstOf(r.GetResponseRange().GetKvs())
	}
	return nil
}

// readAll is one transaction that only reads, in as many attempts as there is time
// for.
func (s *Store) readAll(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	for {
		once, cancel := s.attempt(ctx)
		resp, err := s.kv.Txn(once).Then(ops...).Commit()
		cancel()
		if err == nil || !waitToRetry(ctx, err) {
			return resp, err
		}
	}
}

func firstOf(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// compactionTries is how often a read of one revision begins again when that
// revision is compacted under it.
const compactionTries = 4

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
	if err := s.enter(ctx); err != nil {
		return backend.Page{}, err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.check(within); err != nil {
		return backend.Page{}, readFailure(ctx, "list", err)
	}
	var page backend.Page
	for try := range compactionTries {
		page, err = s.page(within, q, limit, at, id)
		if !isCompacted(err) || try == compactionTries-1 {
			break
		}
	}
	return page, readFailure(ctx, "list", err)
}

// page reads the keys of the list and then their records, both at the revision
// of the first read.
func (s *Store) page(ctx context.Context, q backend.Query, limit int, at int64, id backend.ID) (backend.Page, error) {
	var list []byte
	switch {
	case q.Owner != "":
		list = s.keys.ownerList(q.Kind, q.Owner)
	case q.Parent != backend.ID{}:
		list = s.keys.parentList(q.Kind, q.Parent)
	case q.ExpiresBefore != 0:
		list = s.keys.expiryList(q.Kind)
	default:
		list = s.keys.kindList(q.Kind)
	}
	start, end := listKey(list, at, id), keyAfter(list)
	if q.After != "" {
		start += "\x00" // just after it
	}
	if q.ExpiresBefore != 0 {
		end = listKey(list, q.ExpiresBefore, backend.ID{})
	}
	if start >= end {
		return backend.Page{}, nil // a cursor past an edge that has moved back
	}
	index, err := s.index(ctx, list, start, end, limit)
	if err != nil {
		return backend.Page{}, err
	}
	page := backend.Page{}
	if page.Records, err = s.records(ctx, index.ids, index.revision); err != nil {
		return backend.Page{}, err
	}
	if index.more {
		page.Next = backend.NewCursor(q, index.last, index.ids[limit-1])
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

// records reads records that are listed, at a revision at which they are.
func (s *Store) records(ctx context.Context, ids []backend.ID, revision int64) ([]backend.Record, error) {
	kvs, err := s.fetch(ctx, s.keys.all(ids), revision)
	if err != nil {
		return nil, err
	}
	recs := make([]backend.Record, len(ids))
	for i, kv := range kvs {
		if kv == nil { // the two are written together, so neither is there alone
			return nil, fmt.Errorf("etcd: record %x is listed and not there: %w", ids[i], backend.ErrCorrupt)
		}
		if recs[i], err = decodeRecord(ids[i], kv.Value, kv.ModRevision); err != nil {
			return nil, err
		}
	}
	return recs, nil
}
