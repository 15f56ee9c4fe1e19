package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Purge implements backend.Purger: it sweeps the list of what is due. Each record
// goes only in the version that was read as due, so one whose PurgeAt moves
// meanwhile stays. When it fails, n is how many surely went before.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (n int, err error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.calls.Leave()
	start, end := string(s.keys.due()), keyAfter(s.keys.due())
	if ms := before.UnixMilli(); ms < 0 {
		return 0, nil
	} else if ms < 1<<62 {
		end = listKey(s.keys.due(), ms+1, backend.ID{})
	}
	for n < limit && start != "" {
		var gone int
		gone, start, err = s.sweep(ctx, start, end, min(limit-n, readsAtOnce))
		n += gone
		if err != nil {
			return n, readFailure(ctx, "purge", err)
		}
	}
	return n, nil
}

// sweep removes what is due from start on, at most limit records, and returns
// where to go on: "" at the end.
func (s *Store) sweep(ctx context.Context, start, end string, limit int) (n int, next string, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.check(ctx); err != nil {
		return 0, "", err
	}
	index, err := s.read(ctx, start, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithKeysOnly())
	if err != nil || len(index.Kvs) == 0 {
		return 0, "", err
	}
	if index.More {
		next = string(index.Kvs[len(index.Kvs)-1].Key) + "\x00"
	}
	due, err := s.due(ctx, index)
	if err != nil {
		return 0, "", err
	}
	if len(due) > 0 {
		if err := s.settle(ctx, due); err != nil {
			return 0, "", err
		}
	}
	for len(due) > 0 {
		some := due[:s.keys.erasable(due)]
		due = due[len(some):]
		gone, err := s.eraseEach(ctx, some)
		n += gone
		if err != nil {
			return n, "", err
		}
	}
	return n, next, nil
}

// due reads the records of a stretch of the list. It steps over what is damaged:
// that must not keep everything after it.
func (s *Store) due(ctx context.Context, index *clientv3.GetResponse) ([]backend.Record, error) {
	names := make([]string, len(index.Kvs))
	at, ids := make([]int64, len(index.Kvs)), make([]backend.ID, len(index.Kvs))
	for i, kv := range index.Kvs {
		var err error
		if at[i], ids[i], err = parseListKey(s.keys.due(), kv.Key); err != nil {
			return nil, err
		}
		names[i] = s.keys.record(ids[i])
	}
	// As they are now, not as they were when the list was read: what has moved
	// meanwhile is not due by this place.
	kvs, err := s.fetch(ctx, names, 0)
	if err != nil {
		return nil, err
	}
	var due []backend.Record
	for i, kv := range kvs {
		if kv == nil {
			continue
		}
		rec, err := decodeRecord(ids[i], kv.Value, kv.ModRevision)
		if err != nil {
			s.opts.Logger.Warn("etcd: a damaged record cannot be purged", "id", fmt.Sprintf("%x", ids[i]))
			continue
		}
		if rec.PurgeAt == at[i] {
			due = append(due, rec)
		}
	}
	return due, nil
}

// eraseEach removes records all at once, and where one has changed meanwhile each
// by itself.
func (s *Store) eraseEach(ctx context.Context, recs []backend.Record) (n int, err error) {
	err = s.erase(ctx, recs)
	if err == nil {
		return len(recs), nil
	}
	if !isChanged(err) {
		return 0, err
	}
	for i := range recs {
		switch err := s.erase(ctx, recs[i:i+1]); {
		case err == nil:
			n++
		case !isChanged(err):
			return n, err
		}
	}
	return n, nil
}

// isChanged reports whether a record is no longer the one that was due, or may have
// gone in an attempt that was not answered: that one is not counted.
func isChanged(err error) bool {
	return errors.Is(err, backend.ErrConflict) || errors.Is(err, errDoubtful)
}
