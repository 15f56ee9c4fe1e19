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
