package engine

import (
	"encoding/binary"
	"sync"

	"github.com/fobkit/fob/internal/clock"
)

// newest keeps those who are told an older state of a record from coming after those
// who were told a newer one. A change can be read before it is acknowledged, so the
// writer's own forgetting comes too late for that: whoever reads a record compares its
// version with that of which answers in memory are made, or are about to be. Where the
// two differ, all of these are forgotten before the reader tells anybody what it read.
//
// For that a record is noted here as long as an answer may depend on it: while a load
// that reads it is under way (pin, before it reads), and while an answer made from it
// may be in memory (release). Nothing depends on a record that is not noted, so to
// read a million of them forgets nothing. See docs/decisions/0015-old-after-new.md.
type newest struct {
	memory remembered
	shards [64]newestShard
}

// remembered is what depends on records.
type remembered interface {
	forget(ids ...ID)
	forgetAbsent(id ID)
	version(id ID) uint64
	clear()
}

type newestShard struct {
	mu     sync.Mutex // guards what is below; held while what depends on one of its records is forgotten
	loads  map[ID]sighting
	kept   generations // of what was accepted, or refused for good
	absent generations // of what there is not: a flood of it must push out nothing else
	_      [40]byte
}

// sighting is a record that loads under way read.
type sighting struct {
	loads   int
	read    bool   // by anybody, since it was noted; before that the version means nothing
	differs bool   // it was found to be another one than before
	version uint64 // zero: there is no such record
}

// generations is a bounded map of versions that forgets the older half at a time.
type generations struct {
	limit      int
	young, old map[ID]uint64
}

func (n *newest) start(of remembered, entries int) {
	n.memory = of
	for i := range n.shards {
		s := &n.shards[i]
		s.loads = make(map[ID]sighting)
		// A key has a subject; a token has marks, a parent and its subject besides.
		s.kept.limit = max(16, 4*entries/len(n.shards))
		s.absent.limit = max(16, 4*min(entries, absentEntries)/len(n.shards))
	}
}

func (n *newest) shard(id ID) *newestShard {
	return &n.shards[binary.LittleEndian.Uint64(id[8:])*0x9e3779b97f4a7c15>>58]
}

// put notes a version, and returns what had to make room for it.
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

// maxReads is how many records a load can read of which something is remembered.
const maxReads = 24

// Reading is what a load reads: records are named before they are read, so that what comes
// into memory depends on them. It is for one goroutine.
type Reading struct {
	Now   clock.Moment // when the verification began
	Fresh bool         // nothing in memory is believed

	newest *newest
	ids    [maxReads]ID
	n      int
	many   bool // more than have a place: then nothing is kept
	own    ID
	// kept, and absent, say that an answer came into memory that was made from them.
	kept, absent bool
}

// Reads says that a record is about to be read.
func (r *Reading) Reads(id ID) { r.newest.pin(r, id) }

// ReadsOwn is Reads for the record by whose ID the answer is found, and whose version the
// answer itself tells.
func (r *Reading) ReadsOwn(id ID) {
	r.own = id
	r.newest.pin(r, id)
}

// End ends the reading. It reports whether one of the records was found to be another one
// than before, so that an answer made of it was not remembered.
func (r *Reading) End() (changed bool) { return r.newest.release(r) }

// pin notes a record that a load is about to read. The load has taken its tickets.
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

// release ends a load. It reports whether one of the records was found to be another
// one than before, so that an answer made of it was not remembered.
func (n *newest) release(p *Reading) (differs bool) {
	for _, id := range p.ids[:p.n] {
		differs = n.unpin(p, id) || differs
	}
	if p.many {
		n.clear() // nobody knows what depends on those that have no place
	}
	p.ids, p.n, p.many, p.own, p.kept, p.absent = [maxReads]ID{}, 0, false, ID{}, false, false
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
	var gone map[ID]uint64
	switch {
	case !noted.read:
	case p.kept && id != p.own:
		gone = s.kept.put(id, noted.version)
	case p.absent:
		for id := range s.absent.put(id, noted.version) {
			n.memory.forgetAbsent(id) // nothing else depends on it, and a stripe is shared by many
		}
	}
	if len(gone) > 0 { // what is no longer noted must have nothing that depends on it
		ids := make([]ID, 0, len(gone))
		for id := range gone {
			ids = append(ids, id)
		}
		n.memory.forget(ids...)
	}
	return noted.differs
}

// saw notes that a record was read, and at which version; zero: there is none. When it
// has returned, no answer in memory is made from another one, nor will one be.
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
		// Under the lock: whoever reads the same meanwhile finds no difference any more,
		// and must not tell of it before this is done.
		n.memory.forget(id)
	}
	if pinned {
		noted.read, noted.version = true, version
		s.loads[id] = noted
	}
}

// forget ends every answer that depends on these records.
func (n *newest) forget(ids ...ID) {
	for _, id := range ids {
		s := n.shard(id)
		s.mu.Lock()
		s.kept.drop(id)
		s.absent.drop(id)
		n.memory.forget(id)
		s.mu.Unlock()
	}
}

// clear ends every answer.
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
