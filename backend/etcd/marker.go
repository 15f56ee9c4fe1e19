package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

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
	return string(append([]byte{layoutFormat}, epoch[:]...))
}

func readMarker(kv *mvccpb.KeyValue) (*marker, error) {
	if len(kv.Value) != 17 || kv.Value[0] != layoutFormat {
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
