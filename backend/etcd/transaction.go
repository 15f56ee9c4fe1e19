package etcd

import (
	"context"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// transaction is one transaction of etcd, applied if all of conds hold; else it answers what
// failed reads.
type transaction struct {
	conds        []clientv3.Cmp
	then, failed []clientv3.Op
	// Sent again when the outcome is unknown, it changes nothing more: its conditions
	// do not hold any longer once it was applied.
	repeatable bool
}

// outcome is what became of a write.
type outcome struct {
	*clientv3.TxnResponse
	// The conditions did not hold, but an attempt before this one may have been
	// applied, and be the reason.
	doubtful bool
}

// commit carries out a write, in as many attempts as there is time for while that
// is safe. An error from before anything was sent is an unsentError.
func (s *Store) commit(ctx context.Context, w transaction) (outcome, error) {
	var doubt error // the failure of an attempt that may have been applied
	for marks := 0; ; {
		m, err := s.mark(ctx)
		if err == nil {
			err = s.connected(ctx)
		}
		switch {
		case err == nil:
		case waitToRetry(ctx, err):
			continue
		case doubt != nil:
			return outcome{}, doubt
		default:
			return outcome{}, unsentError{err}
		}
		once, cancel := s.attempt(ctx)
		resp, err := s.kv.Txn(once).
			If(append(slices.Clip(w.conds), clientv3.Compare(clientv3.Value(s.keys.marker()), "=", m.value))...).
			Then(nested(w.then)...).
			Else(append(slices.Clip(w.failed), clientv3.OpGet(s.keys.marker()))...).Commit()
		cancel()
		switch {
		case err == nil && (resp.Succeeded || s.stillMarked(m, resp)):
			return outcome{resp, doubt != nil && !resp.Succeeded}, nil
		case err == nil:
			// The marker is gone, or another one: whoever has emptied the cluster under
			// us finds the store writable.
			s.marker.CompareAndSwap(m, nil)
			if marks++; marks <= 3 {
				continue
			}
			err = unsentError{errMarkers}
		case isNoSpace(err): // the caller looks for itself
		case isRefusal(err):
			if isPassing(err) && waitToRetry(ctx, err) {
				continue
			}
		default:
			doubt = err
			if w.repeatable && waitToRetry(ctx, err) {
				continue
			}
		}
		if doubt != nil {
			err = doubt
		}
		return outcome{}, err
	}
}

func (s *Store) stillMarked(m *marker, resp *clientv3.TxnResponse) bool {
	kvs := resp.Responses[len(resp.Responses)-1].GetResponseRange().GetKvs()
	return len(kvs) == 1 && string(kvs[0].Value) == m.value
}

// A server allows 128 operations in a transaction by default, and as many in each one
// within it, less those of the outer one.
const (
	maxOps    = 126
	nestedOps = 100
)

// nested is what a transaction does, in transactions within it where it is too much for
// one: an update that replaces all labels of a record. It is made whole or not at all.
func nested(ops []clientv3.Op) []clientv3.Op {
	if len(ops) <= maxOps {
		return ops
	}
	var parts []clientv3.Op
	for some := range slices.Chunk(ops, nestedOps) {
		parts = append(parts, clientv3.OpTxn(nil, some, nil))
	}
	return parts
}
