package badger

import (
	"bytes"
	"context"
	"errors"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// GetMany implements backend.BulkReader, in one transaction.
func (s *Store) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if err := backend.CheckGetMany(ids); err != nil {
		return nil, err
	}
	if err := s.calls.Enter(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return nil, err
	}
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	found := make([]backend.Record, 0, len(ids))
	for _, id := range ids {
		switch rec, err := readRecord(txn, id); {
		case err == nil:
			found = append(found, rec)
		case !errors.Is(err, backend.ErrNotFound):
			return nil, err
		}
	}
	return found, nil
}

// The parts in which a Scan reads. A part is read in one transaction: while that is open,
// old versions are not reclaimed and Close waits.
const (
	scanAtOnce = 2048    // records that are handed on together
	passAtOnce = 1 << 16 // records that are looked at
	byList     = 8192    // records that are read by the list before something else is thought of
	listCost   = 12      // what a record costs that is read by the list, in records that are passed
)

// Scan implements backend.Scanner. It walks the list of the kind, whose keys never change,
// and reads each record that is named there. That costs twelve times what it costs to pass a
// record in the order in which they lie on disk: where the kind has more than a twelfth of
// all records, it begins anew and passes all of them. Either way what is written meanwhile
// moves no record.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return err
	}
	sc := scanner{list: kindList(kind), kind: kind}
	sc.after, sc.part = sc.list, sc.listed
	for read, last := 0, false; !last; {
		var recs []backend.Record
		err := s.reading(ctx, func(txn *badgerdb.Txn) (err error) {
			recs, last, err = sc.part(txn)
			return err
		})
		if errors.Is(err, backend.ErrCorrupt) && sc.passes && !sc.damaged {
			// A damaged record does not say of which kind it is, and the list does.
			sc.damaged, last = true, false
			sc.after, sc.part = sc.list, sc.listed
			continue
		}
		if err != nil {
			return err
		}
		if len(recs) > 0 {
			if err := fn(recs); err != nil {
				return err
			}
		}
		if read += len(recs); read >= byList && !sc.passes && s.worthPassing(sc.list, read) {
			sc.passes = true
			sc.after, sc.part = []byte{prefixRecord}, sc.passed
		}
	}
	return nil
}

// reading is one part of a Scan.
func (s *Store) reading(ctx context.Context, do func(*badgerdb.Txn) error) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	if err := s.readable(); err != nil {
		return err
	}
	return readError(s.db.View(do))
}

// worthPassing reports whether to pass all records is cheaper than to read those of a list,
// of which so many were there already. The tables say how many there are, roughly: what is
// in a table with other things does not count, which is little.
func (s *Store) worthPassing(list []byte, read int) bool {
	var listed, all uint64
	for _, t := range s.db.Tables() {
		switch {
		case bytes.HasPrefix(t.Left, list) && bytes.HasPrefix(t.Right, list):
			listed += uint64(t.KeyCount)
		case t.Left[0] == prefixRecord && t.Right[0] == prefixRecord:
			all += uint64(t.KeyCount)
		}
	}
	return all <= listCost*max(listed, uint64(read))
}

// scanner is the state of one Scan.
type scanner struct {
	kind    backend.Kind
	list    []byte
	after   []byte // where the next part begins
	passes  bool   // all records, or has begun to
	damaged bool   // some of them: they are read by the list after all
	part    func(*badgerdb.Txn) (recs []backend.Record, last bool, err error)
}

// listed reads a part by the list.
func (sc *scanner) listed(txn *badgerdb.Txn) (recs []backend.Record, last bool, err error) {
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: sc.list})
	defer it.Close()
	recs = make([]backend.Record, 0, scanAtOnce)
	for it.Seek(sc.after); it.Valid(); it.Next() {
		key := it.Item().Key()
		if len(recs) == scanAtOnce {
			sc.after = it.Item().KeyCopy(nil)
			return recs, false, nil
		}
		if len(key) != len(sc.list)+8+idLen {
			return nil, false, backend.ErrCorrupt
		}
		rec, err := readRecord(txn, backend.ID(key[len(sc.list)+8:]))
		if errors.Is(err, backend.ErrNotFound) {
			err = backend.ErrCorrupt // the two are written together, so neither is there alone
		}
		if err != nil {
			return nil, false, err
		}
		recs = append(recs, rec)
	}
	return recs, true, nil
}

// passed reads a part by passing all records.
func (sc *scanner) passed(txn *badgerdb.Txn) (recs []backend.Record, last bool, err error) {
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: []byte{prefixRecord}})
	defer it.Close()
	recs = make([]backend.Record, 0, scanAtOnce)
	n := 0
	for it.Seek(sc.after); it.Valid(); it.Next() {
		item := it.Item()
		if n == passAtOnce || len(recs) == scanAtOnce {
			sc.after = item.KeyCopy(nil)
			return recs, false, nil
		}
		n++
		if len(item.Key()) != 1+idLen {
			return nil, false, backend.ErrCorrupt
		}
		id := backend.ID(item.Key()[1:])
		err := item.Value(func(val []byte) (err error) {
			rec := backend.Record{Kind: kindOf(id, val)}
			if rec.Kind == sc.kind || rec.Kind == 0 {
				rec, err = decodeRecord(id, val)
				recs = append(recs, rec)
			}
			return err
		})
		if err != nil {
			return nil, false, err
		}
	}
	return recs, true, nil
}
