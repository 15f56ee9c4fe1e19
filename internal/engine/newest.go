package engine

import (
	"encoding/binary"
	"sync"

	"github.com/fobkit/fob/internal/clock"
)

// newest sees to it that no caller gets an older state of a record after another caller got
// a newer one. The writer of a change drops the old answers when the change is
// acknowledged. That is too late, because the change can be read before it is acknowledged.
// So whoever reads a record compares its version with the version from which answers in
// memory are made, or are about to be made. If the versions differ, all of these answers
// are dropped before the reader tells anybody what it read.
//
// To make that possible, a record is noted here for as long as an answer may depend on it:
// while a load that reads the record is under way (pin notes it, before the read), and
// while an answer made from it may be in memory (release notes it). No answer depends on a
// record that is not noted, so to read a million such records drops nothing. See
// docs/decisions/0015-old-after-new.md.
type newest struct {
	memory dependents
	shards [64]newestShard
}

// dependents are the entries in memory that depend on records.
type dependents interface {
	forget(ids ...ID)
	forgetAbsent(id ID)
	version(id ID) uint64
	clear()
}

type newestShard struct {
	mu     sync.Mutex // guards the fields below; held while entries that depend on one of the records are dropped
	loads  map[ID]sighting
	kept   generations // versions from which answers and parts in memory are made
	absent generations // versions from which refusals in memory are made; apart, so that a flood of them evicts none of kept
	_      [40]byte
}

// sighting is what is known of a record that loads under way read.
type sighting struct {
	loads   int    // how many of them there are
	read    bool   // somebody has read the record since it was noted; only then version counts
	differs bool   // the record was found at another version than before
	version uint64 // as it was read last; zero: there is no such record
}

// generations is a bounded map from records to versions. When it is full, it drops the
// older half of its entries at once.
type generations struct {
	limit      int
	young, old map[ID]uint64
}

func (n *newest) start(of dependents, entries int) {
	n.memory = of
	for i := range n.shards {
		s := &n.shards[i]
		s.loads = make(map[ID]sighting)
		// The factor 4 is for the records that an answer depends on: that of a key on its
		// subject too, that of a token on its marks, its parent and its subject.
		s.kept.limit = max(16, 4*entries/len(n.shards))
		s.absent.limit = max(16, 4*min(entries, absentEntries)/len(n.shards))
	}
}

func (n *newest) shard(id ID) *newestShard { return &n.shards[shardOf(id)] }

func shardOf(id ID) uint64 { return binary.LittleEndian.Uint64(id[8:]) * 0x9e3779b97f4a7c15 >> 58 }

// put notes a version. It returns the entries that were dropped to make room.
func (g *generations) put(id ID, version uint64) (gone map[ID]uint64) {
	if g.young == nil {
		g.young = make(map[ID]uint64)
	}
	if _, ok := g.young[id]; !ok && len(g.young) >= g.limit {
		gone, g.old, g.young = g.old, g.young, make(map[ID]uint64)
	}
	g.young[id] = version
	delete(g.old, id)
	delete(gone, id)
	return gone
}

// differs reports whether another version of a record is noted.
func (g *generations) differs(id ID, version uint64) bool {
	noted, ok := g.young[id]
	if !ok {
		noted, ok = g.old[id]
	}
	return ok && noted != version
}

func (g *generations) drop(id ID) {
	delete(g.young, id)
	delete(g.old, id)
}

// maxReads is how many records a load may read for its answer to be remembered.
const maxReads = 24

// Reading is the set of records that a load reads. A record must be named before it is
// read, so that what the load puts into memory depends on it. A Reading is for one
// goroutine.
type Reading struct {
	Now   clock.Moment // when the verification began
	Fresh bool         // everything is read from the store, whatever is in memory

	newest *newest
	ids    [maxReads]ID
	n      int
	many   bool // more than maxReads were named: then all entries are dropped at the end
	own    ID
	// kept says that an answer or a part, absent that a refusal made from the records was
	// put into memory.
	kept, absent bool
}

// Reads names a record that is about to be read.
func (r *Reading) Reads(id ID) { r.newest.pin(r, id) }

// ReadsOwn is Reads for the record by whose ID the answer is found. The version of that
// record is in the answer itself.
func (r *Reading) ReadsOwn(id ID) {
	r.own = id
	r.newest.pin(r, id)
}

// End ends the reading. changed reports whether one of the records was found at another
// version than before: an answer made from it was not remembered.
func (r *Reading) End() (changed bool) { return r.newest.release(r) }

// pin notes a record that a load is about to read. The load must have taken its tickets
// before.
func (n *newest) pin(p *Reading, id ID) {
	for i := range p.n {
		if p.ids[i] == id {
			return
		}
	}
	if p.n == len(p.ids) {
		p.many = true
		return
	}
	p.ids[p.n] = id
	p.n++
	s := n.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := s.loads[id]
	noted.loads++
	s.loads[id] = noted
}

// release ends a load. It reports whether one of the records was found at another version
// than before: an answer made from it was not remembered.
func (n *newest) release(p *Reading) (differs bool) {
	for _, id := range p.ids[:p.n] {
		differs = n.unpin(p, id) || differs
	}
	if p.many {
		n.clear() // answers may depend on records that were not noted
	}
	p.n, p.many, p.own, p.kept, p.absent = 0, false, ID{}, false, false
	return differs
}

func (n *newest) unpin(p *Reading, id ID) (differs bool) {
	s := n.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := s.loads[id]
	if noted.loads--; noted.loads == 0 {
		delete(s.loads, id)
	} else {
		s.loads[id] = noted
	}
	var gone map[ID]uint64 // no longer noted, so that no entry may depend on it
	switch {
	case !noted.read:
	case p.kept && id != p.own:
		gone = s.kept.put(id, noted.version)
	case p.absent:
		for id := range s.absent.put(id, noted.version) {
			n.memory.forgetAbsent(id) // only refusals depend on it, and forget would note it in every cache
		}
	}
	if len(gone) > 0 {
		ids := make([]ID, 0, len(gone))
		for id := range gone {
			ids = append(ids, id)
		}
		n.memory.forget(ids...)
	}
	return noted.differs
}

// saw notes that a record was read, and at which version; zero means that there is no such
// record. Once saw has returned, no answer in memory is made from another version of the
// record, and none will be.
func (n *newest) saw(id ID, version uint64) {
	s := n.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted, pinned := s.loads[id]
	held := n.memory.version(id)
	if pinned && noted.read && noted.version != version || held != 0 && held != version ||
		s.kept.differs(id, version) || s.absent.differs(id, version) {
		noted.differs = true
		s.kept.drop(id)
		s.absent.drop(id)
		// The entries are dropped under the lock. Another reader of the same version finds
		// no difference from now on, and must not tell anybody of that version before the
		// old answers are gone.
		n.memory.forget(id)
	}
	if pinned {
		noted.read, noted.version = true, version
		s.loads[id] = noted
	}
}

// forget drops every entry that depends on these records. It takes the lock of a shard once,
// however many of the records belong there.
func (n *newest) forget(ids ...ID) {
	var ends [len(n.shards)]int // where the records of a shard end, once they are sorted
	for _, id := range ids {
		ends[shardOf(id)]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	starts, sorted := ends, make([]ID, len(ids))
	for _, id := range ids {
		i := shardOf(id)
		starts[i]--
		sorted[starts[i]] = id
	}
	for i, start := range starts {
		if start < ends[i] {
			n.shards[i].forget(n.memory, sorted[start:ends[i]])
		}
	}
}

func (s *newestShard) forget(memory dependents, ids []ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.kept.drop(id)
		s.absent.drop(id)
	}
	memory.forget(ids...)
}

// clear drops every entry.
func (n *newest) clear() {
	for i := range n.shards {
		n.shards[i].mu.Lock()
	}
	n.memory.clear()
	for i := range n.shards {
		s := &n.shards[i]
		s.kept.young, s.kept.old, s.absent.young, s.absent.old = nil, nil, nil, nil
		s.mu.Unlock()
	}
}
