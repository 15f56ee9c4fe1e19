package fob

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/marks"
)

// newest keeps those who are told an older state of a record from coming after those
// who were told a newer one. A change can be read before it is acknowledged, so the
// writer's own forgetting comes too late for that: whoever reads a record compares its
// version with that of which answers in memory are made, or are about to be. Where the
// two differ, all of these are forgotten before the reader tells anybody what it read.
//
// For that a record is noted here as long as an answer may depend on it: while a load
// that reads it is under way (pin, before it reads), and while an answer made from it
// may be in the cache (release). Nothing depends on a record that is not noted, so to
// read a million of them forgets nothing. See docs/decisions/0015-old-after-new.md.
type newest struct {
	answers *answers
	shards  [64]newestShard
	off     bool // only for the test that sees what this is for
}

type newestShard struct {
	mu     sync.Mutex // guards what is below; held while what depends on one of its records is forgotten
	loads  map[backend.ID]sighting
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
	young, old map[backend.ID]uint64
}

func newNewest(a *answers, entries int) *newest {
	n := &newest{answers: a}
	for i := range n.shards {
		s := &n.shards[i]
		s.loads = make(map[backend.ID]sighting)
		// A key has a subject; a token has marks, a parent and its subject besides.
		s.kept.limit = max(16, 4*entries/len(n.shards))
		s.absent.limit = max(16, 4*min(entries, absentEntries)/len(n.shards))
	}
	return n
}

func (n *newest) shard(id backend.ID) *newestShard {
	return &n.shards[binary.LittleEndian.Uint64(id[8:])*0x9e3779b97f4a7c15>>58]
}

// put notes a version, and returns what had to make room for it.
func (g *generations) put(id backend.ID, version uint64) (gone map[backend.ID]uint64) {
	if g.young == nil {
		g.young = make(map[backend.ID]uint64)
	}
	if _, ok := g.young[id]; !ok && len(g.young) >= g.limit {
		gone, g.old, g.young = g.old, g.young, make(map[backend.ID]uint64)
	}
	g.young[id] = version
	delete(g.old, id)
	delete(gone, id)
	return gone
}

// differs reports whether another version of a record is noted.
func (g *generations) differs(id backend.ID, version uint64) bool {
	noted, ok := g.young[id]
	if !ok {
		noted, ok = g.old[id]
	}
	return ok && noted != version
}

func (g *generations) drop(id backend.ID) {
	delete(g.young, id)
	delete(g.old, id)
}

// pins are the records that a load reads.
type pins struct {
	// A load reads two records for each key of a locator and for each other form of it, at
	// the most, and a subject.
	ids  [2*maxSharing + 8]backend.ID
	n    int
	many bool // more than have a place: then nothing is kept
	// own is the record whose version an entry of the cache under its ID itself tells.
	own backend.ID
	// kept, and absent, say that an answer came into memory that was made from them.
	kept, absent bool
}

// pin notes a record that a load is about to read. The load has taken its tickets.
func (n *newest) pin(p *pins, id backend.ID) {
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
func (n *newest) release(p *pins) (differs bool) {
	for _, id := range p.ids[:p.n] {
		differs = n.unpin(p, id) || differs
	}
	if p.many {
		n.clear() // nobody knows what depends on those that have no place
	}
	*p = pins{}
	return differs
}

func (n *newest) unpin(p *pins, id backend.ID) (differs bool) {
	s := n.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := s.loads[id]
	if noted.loads--; noted.loads == 0 {
		delete(s.loads, id)
	} else {
		s.loads[id] = noted
	}
	var gone map[backend.ID]uint64
	switch {
	case !noted.read:
	case p.kept && id != p.own:
		gone = s.kept.put(id, noted.version)
	case p.absent:
		for id := range s.absent.put(id, noted.version) {
			n.answers.absent.Invalidate(cache.Ref(id)) // nothing else depends on it, and a stripe is shared by many
		}
	}
	if len(gone) > 0 { // what is no longer noted must have nothing that depends on it
		ids := make([]backend.ID, 0, len(gone))
		for id := range gone {
			ids = append(ids, id)
		}
		n.answers.forget(ids...)
	}
	return noted.differs
}

// saw notes that a record was read, and at which version; zero: there is none. When it
// has returned, no answer in memory is made from another one, nor will one be.
func (n *newest) saw(id backend.ID, version uint64) {
	if n.off {
		return
	}
	s := n.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted, pinned := s.loads[id]
	held := n.answers.version(id)
	if pinned && noted.read && noted.version != version || held != 0 && held != version ||
		s.kept.differs(id, version) || s.absent.differs(id, version) {
		noted.differs = true
		s.kept.drop(id)
		s.absent.drop(id)
		// Under the lock: whoever reads the same meanwhile finds no difference any more,
		// and must not tell of it before this is done.
		n.answers.forget(id)
	}
	if pinned {
		noted.read, noted.version = true, version
		s.loads[id] = noted
	}
}

// forget ends every answer that depends on these records.
func (n *newest) forget(ids ...backend.ID) {
	for _, id := range ids {
		s := n.shard(id)
		s.mu.Lock()
		s.kept.drop(id)
		s.absent.drop(id)
		n.answers.forget(id)
		s.mu.Unlock()
	}
}

// clear ends every answer.
func (n *newest) clear() {
	for i := range n.shards {
		n.shards[i].mu.Lock()
	}
	n.answers.clear()
	for i := range n.shards {
		s := &n.shards[i]
		s.kept.young, s.kept.old, s.absent.young, s.absent.old = nil, nil, nil, nil
		s.mu.Unlock()
	}
}

// seenStore is the store as a Manager reads it: what is read is noted before anybody is
// told. Its capabilities are the store's own.
type seenStore struct {
	backend.Store
	m *Manager
}

func (s *seenStore) Unwrap() backend.Store { return s.Store }

func (s *seenStore) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	switch {
	case err == nil:
		s.m.saw(&rec)
	case errors.Is(err, backend.ErrNotFound):
		s.m.newest.saw(id, 0)
	}
	return rec, err
}

// saw notes a record that was read from the store: see newest, and for marks also what
// it says, which only rises.
func (m *Manager) saw(rec *backend.Record) {
	if marks.Is(rec.ID) && m.marks.Follows && !m.newest.off {
		if to, err := marks.Decode(rec); err == nil {
			m.marks.Raise(rec.ID, to)
		}
	}
	m.newest.saw(rec.ID, rec.Version)
}
