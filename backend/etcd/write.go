package etcd

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Put implements backend.Store. A new record is one transaction, and one round
// trip. An update needs the record as it was: what it may not change is compared, and
// the places in the lists that it gives up are named by what it was. It reads it first,
// unless this Store has read or written it a moment ago.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	version, err := s.put(within, &rec, cond)
	return version, writeFailure(ctx, "put", err)
}

func (s *Store) put(ctx context.Context, rec *backend.Record, cond backend.Cond) (uint64, error) {
	key, mine := s.keys.record(rec.ID), newNonce()
	fixed, moving := s.keys.indexes(rec)
	then := []clientv3.Op{clientv3.OpPut(key, encodeRecord(rec, mine))}
	var holds clientv3.Cmp
	if cond.Absent() {
		holds = clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
		for _, k := range append(fixed, moving...) {
			then = append(then, clientv3.OpPut(k, ""))
		}
	} else {
		v, _ := cond.Version()
		old, known := s.recent.find(rec.ID, v)
		if !known || backend.CheckUpdate(old, *rec) != nil { // which is no answer about a record that has gone since
			var err error
			if old, err = s.expect(ctx, rec.ID, v); err != nil {
				return 0, err
			}
			if err := backend.CheckUpdate(old, *rec); err != nil {
				return 0, err
			}
		}
		holds = clientv3.Compare(clientv3.ModRevision(key), "=", int64(v))
		_, before := s.keys.indexes(&old)
		then = append(then, indexMoves(before, moving)...)
	}
	// An attempt that was applied is known by its nonce when the next one meets it.
	resp, err := s.commit(ctx, transaction{[]clientv3.Cmp{holds}, then, []clientv3.Op{clientv3.OpGet(key)}, true})
	if isNoSpace(err) {
		return s.found(ctx, rec.ID, cond, mine, err)
	}
	if err != nil {
		return 0, err
	}
	if resp.Succeeded {
		made := *rec
		made.Version = uint64(resp.Header.Revision)
		s.recent.note(made)
		return made.Version, nil
	}
	now := firstOf(resp.Responses[0].GetResponseRange().GetKvs())
	switch {
	case now != nil && hasNonce(now.Value, mine):
		return uint64(now.ModRevision), nil
	case resp.doubtful: // it may have been applied, and overwritten since
		return 0, errDoubtful
	case now == nil && !cond.Absent():
		return 0, backend.ErrNotFound
	}
	return 0, backend.ErrConflict
}

// found is what became of a Put that was answered with full, for which isNoSpace holds.
func (s *Store) found(ctx context.Context, id backend.ID, cond backend.Cond, mine nonce, full error) (uint64, error) {
	resp, err := s.read(ctx, s.keys.record(id))
	if err != nil {
		return 0, full
	}
	v, _ := cond.Version()
	switch now := firstOf(resp.Kvs); {
	case now != nil && hasNonce(now.Value, mine):
		return uint64(now.ModRevision), nil
	case now == nil && cond.Absent(), now != nil && !cond.Absent() && now.ModRevision == int64(v):
		return 0, unsentError{full}
	}
	return 0, full // it may have been applied, and overwritten since
}

var errDoubtful = errors.New("an attempt was not answered, and the next one found a change")

// indexMoves changes the keys in the lists from before to now. etcd refuses a
// transaction that names one key twice.
func indexMoves(before, now []string) []clientv3.Op {
	var ops []clientv3.Op
	stays := make(map[string]bool, len(now))
	for _, k := range now {
		stays[k] = true
	}
	for _, k := range before {
		if stays[k] {
			delete(stays, k)
			continue
		}
		ops = append(ops, clientv3.OpDelete(k))
	}
	for _, k := range now {
		if stays[k] {
			ops = append(ops, clientv3.OpPut(k, ""))
		}
	}
	return ops
}

// expect reads the record that a write is about, in the version that it must
// have. Its errors are from before the write.
func (s *Store) expect(ctx context.Context, id backend.ID, version uint64) (backend.Record, error) {
	rec, err := s.get(ctx, id)
	switch {
	case err != nil:
		return rec, unsentError{err}
	case rec.Version != version:
		return rec, backend.ErrConflict
	}
	return rec, nil
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, id backend.ID, version uint64) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	within, cancel := s.bounded(ctx)
	defer cancel()
	return writeFailure(ctx, "delete", s.remove(within, id, version))
}

func (s *Store) remove(ctx context.Context, id backend.ID, version uint64) error {
	old, err := s.expect(ctx, id, version)
	if err != nil {
		return err
	}
	going := []backend.Record{old}
	if err := s.settle(ctx, going); err != nil {
		return unsentError{err}
	}
	err = s.erase(ctx, going)
	if !errors.Is(err, backend.ErrConflict) {
		return err
	}
	if _, err := s.get(ctx, id); errors.Is(err, backend.ErrNotFound) {
		return err
	}
	return backend.ErrConflict
}

// erasable is how many of recs one transaction removes, at least one.
func (k keys) erasable(recs []backend.Record) (n int) {
	for ops := 0; n < len(recs); n++ {
		fixed, moving := k.indexes(&recs[n])
		if ops += len(fixed) + len(moving) + 2; ops > maxOps && n > 0 {
			break
		}
	}
	return n
}

// erase removes records, with all that belongs to them, if each still has its
// version, or none.
func (s *Store) erase(ctx context.Context, recs []backend.Record) error {
	var conds []clientv3.Cmp
	var then []clientv3.Op
	for i := range recs {
		key := s.keys.record(recs[i].ID)
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "=", int64(recs[i].Version)))
		fixed, moving := s.keys.indexes(&recs[i])
		for _, k := range append(append(fixed, moving...), key, s.keys.usage(recs[i].ID)) {
			then = append(then, clientv3.OpDelete(k))
		}
	}
	resp, err := s.commit(ctx, transaction{conds: conds, then: then, repeatable: true})
	switch {
	case err != nil:
		return err
	case resp.doubtful:
		return errDoubtful
	case !resp.Succeeded:
		return backend.ErrConflict
	}
	return nil
}
