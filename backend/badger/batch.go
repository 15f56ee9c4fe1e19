package badger

import (
	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// batch is one transaction in the making, or several where one cannot hold it all. It is evaluated while the batch before it is
// committed: see docs/decisions/0018-queues-that-fold-writes.md.
type batch struct {
	db   *badgerdb.DB
	full []*badgerdb.Txn // that have taken all they may, to be committed before txn, in turn
	txn  *badgerdb.Txn
	used int // of txn, in bytes as BadgerDB counts them
	// before is the batch that is being committed meanwhile, if there is one. The
	// transaction began before that commit and does not see it.
	before *batch
	// wrote is what the batch leaves under the keys that batches read: those of records and
	// of usage; nil is nothing.
	wrote map[string][]byte

	seq     uint64 // of the last change in it
	first   uint64 // the last change before it
	trimmed uint64 // the floor of the feed after it

	applied []*op
	broken  error // why nothing of it may be written
	checked bool  // room and low are set
	room    room
	low     error
}

// What one transaction takes. BadgerDB refuses one of 15 % of a memtable, 2.4 MB, and one of
// so many entries that each of them could have leastEntry of that. The longest operation, a
// batch of 10,000 usages, takes 0.9 MiB.
const (
	fullAt     = 1 << 20 // from here on another one is begun before the next operation
	leastEntry = 96
	perEntry   = 16 // beside key and value
)

// makeRoom is called between operations, and between parts of one that need not be made
// all at once. An update gives up as many labels as its record had, which nobody knows
// before it is evaluated: so many of them may not fit into one transaction. What is read
// in the next one is the same, because batches look at what they have written themselves.
func (b *batch) makeRoom() {
	if b.used < fullAt {
		return
	}
	b.full = append(b.full, b.txn)
	b.txn, b.used = b.db.NewTransaction(true), 0 // waits for a commit under way
}

// commit commits all of it, in the order in which it was made, and says in how many commits.
func (b *batch) commit() (commits uint64, err error) {
	for _, txn := range append(b.full, b.txn) {
		if err := txn.Commit(); err != nil {
			return commits, err
		}
		commits++
	}
	return commits, nil
}

func (b *batch) discard() {
	for _, txn := range append(b.full, b.txn) {
		txn.Discard()
	}
}

// write and erase are for keys that no batch reads: those of lists and of the feed.
func (b *batch) write(key, value []byte) error {
	b.used += max(leastEntry, len(key)+len(value)+perEntry)
	return b.txn.Set(key, value)
}

func (b *batch) erase(key []byte) error {
	b.used += max(leastEntry, len(key)+perEntry)
	return b.txn.Delete(key)
}

// change numbers a change and puts it into the feed.
func (b *batch) change(id backend.ID) (version uint64, err error) {
	b.seq++
	return b.seq, b.write(logKey(b.seq), id[:])
}

// set writes a value that batches read.
func (b *batch) set(key, value []byte) error {
	b.note(key, value)
	return b.write(key, value)
}

func (b *batch) delete(key []byte) error {
	b.note(key, nil)
	return b.erase(key)
}

func (b *batch) note(key, value []byte) {
	if b.wrote == nil {
		b.wrote = make(map[string][]byte)
	}
	b.wrote[string(key)] = value
}

// left is what the batch, or the one before it, leaves under a key that batches read. ok is
// false if neither writes there.
func (b *batch) left(key []byte) (value []byte, ok bool) {
	for at := b; at != nil && !ok; at = at.before {
		value, ok = at.wrote[string(key)]
	}
	return value, ok
}

func (b *batch) get(id backend.ID) (backend.Record, error) {
	switch value, ok := b.left(recordKey(id)); {
	case !ok:
		return readRecord(b.txn, id)
	case value == nil:
		return backend.Record{}, backend.ErrNotFound
	default:
		return decodeRecord(id, value)
	}
}

func (b *batch) usage(id backend.ID) (backend.Usage, error) {
	switch value, ok := b.left(usageKey(id)); {
	case !ok:
		return readUsage(b.txn, id)
	case value == nil:
		return backend.Usage{ID: id}, nil
	default:
		return decodeUsage(id, value)
	}
}
