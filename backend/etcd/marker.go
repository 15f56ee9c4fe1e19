package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// marker is the one key that names the layout. The first write of a store makes
// it; every write has it among its conditions, so that a program that does not
// know a later layout cannot write into it. Its epoch is random and tells the
// tokens of one store from those of another.
type marker struct {
	value   string
	epoch   [16]byte
	created int64 // the revision
}

var errFormat = fmt.Errorf("etcd: the keys under this prefix are of a layout that this version does not know: %w", backend.ErrUnavailable)

func newMarker() (value string) {
	var epoch [16]byte
	_, _ = rand.Read(epoch[:]) // never returns an error
	return string(append([]byte{format}, epoch[:]...))
}

func readMarker(kv *mvccpb.KeyValue) (*marker, error) {
	if len(kv.Value) != 17 || kv.Value[0] != format {
		return nil, errFormat
	}
	return &marker{value: string(kv.Value), epoch: [16]byte(kv.Value[1:]), created: kv.CreateRevision}, nil
}

// check makes sure that the layout is known, in the first call that needs it.
// A store that nobody has written to yet has no marker, and that is well.
func (s *Store) check(ctx context.Context) error {
	if s.marker.Load() != nil {
		return nil
	}
	resp, err := s.read(ctx, s.keys.marker())
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	m, err := readMarker(resp.Kvs[0])
	if err != nil {
		return err
	}
	s.marker.Store(m)
	return nil
}

// mark returns the marker, and makes it where there is none.
func (s *Store) mark(ctx context.Context) (*marker, error) {
	if m := s.marker.Load(); m != nil {
		return m, nil
	}
	key, value := s.keys.marker(), newMarker()
	once, cancel := s.attempt(ctx)
	defer cancel()
	resp, err := s.kv.Txn(once).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value), clientv3.OpGet(key)).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return nil, err
	}
	kvs := resp.Responses[len(resp.Responses)-1].GetResponseRange().GetKvs()
	if len(kvs) != 1 {
		return nil, errors.New("the marker is not there after it was made")
	}
	m, err := readMarker(kvs[0])
	if err != nil {
		return nil, err
	}
	s.marker.Store(m)
	return m, nil
}

// write is one transaction, applied if all of conds hold; else it answers what
// failed reads.
type write struct {
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
// is safe. An error from before anything was sent is unsent.
func (s *Store) commit(ctx context.Context, w write) (outcome, error) {
	var doubt error // the failure of an attempt that may have been applied
	for marks := 0; ; {
		m, err := s.mark(ctx)
		if err == nil {
			err = s.connected(ctx)
		}
		switch {
		case err == nil:
		case again(ctx, err):
			continue
		case doubt != nil:
			return outcome{}, doubt
		default:
			return outcome{}, unsent{err}
		}
		once, cancel := s.attempt(ctx)
		resp, err := s.kv.Txn(once).
			If(append(slices.Clip(w.conds), clientv3.Compare(clientv3.Value(s.keys.marker()), "=", m.value))...).
			Then(w.then...).
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
			err = unsent{errors.New("the marker keeps changing")}
		case noSpace(err): // the caller looks for itself
		case refused(err):
			if passing(err) && again(ctx, err) {
				continue
			}
		default:
			doubt = err
			if w.repeatable && again(ctx, err) {
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
