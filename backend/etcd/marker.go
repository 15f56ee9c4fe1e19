package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// marker is the one key that names the layout. The first write of a store makes
// it; every write has it among its conditions, so that a program that does not
// know a later layout cannot write into it. Its epoch is random and tells the
// tokens of one store from those of another.
type marker struct {
	value   string
	layout  byte
	epoch   [16]byte
	created int64 // the revision
}

func newMarker() (value string) {
	var epoch [16]byte
	_, _ = rand.Read(epoch[:]) // never returns an error
	return string(append([]byte{layoutFormat}, epoch[:]...))
}

func readMarker(kv *mvccpb.KeyValue) (*marker, error) {
	v := kv.Value
	switch {
	case len(v) > 0 && v[0] > layoutFormat:
		return nil, unknownLayout("the store under this prefix", v[0])
	case len(v) != 17 || v[0] < oldestFormat:
		return nil, fmt.Errorf("etcd: the marker under this prefix names no layout: %w", errLayout)
	}
	return &marker{value: string(v), layout: v[0], epoch: [16]byte(v[1:]), created: kv.CreateRevision}, nil
}

// check makes sure that the layout is known, in the first call that needs it. An older one
// is read as it is.
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

// mark returns the marker that writes depend on. It makes one where there is none, and
// brings up one of an older layout: the store is the same one, with the same epoch, and from
// then on a process that knows the older layout alone cannot write into it, and its feeds
// end. So no process writes by the old layout what another one writes by this.
func (s *Store) mark(ctx context.Context) (*marker, error) {
	if m := s.marker.Load(); m != nil && m.layout == layoutFormat {
		return m, nil
	}
	key, value := s.keys.marker(), newMarker()
	holds := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	for range 3 {
		m, err := s.remark(ctx, holds, value)
		if err != nil {
			return nil, err
		}
		if m.layout == layoutFormat {
			s.marker.Store(m)
			return m, nil
		}
		holds, value = clientv3.Compare(clientv3.Value(key), "=", m.value), string([]byte{layoutFormat})+m.value[1:]
	}
	return nil, errMarkers
}

var errMarkers = errors.New("the marker keeps changing")

// remark sets the marker where holds is so, and reads it.
func (s *Store) remark(ctx context.Context, holds clientv3.Cmp, value string) (*marker, error) {
	key := s.keys.marker()
	once, cancel := s.attempt(ctx)
	defer cancel()
	resp, err := s.kv.Txn(once).If(holds).
		Then(clientv3.OpPut(key, value), clientv3.OpGet(key)).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return nil, err
	}
	kvs := resp.Responses[len(resp.Responses)-1].GetResponseRange().GetKvs()
	if len(kvs) != 1 {
		return nil, errors.New("the marker is not there after it was made")
	}
	return readMarker(kvs[0])
}
