package etcd

import (
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

const (
	// recentFor is how long what was read or written is remembered, at least; at most
	// twice as long. A key never has another value at the same revision, but for one: in a
	// cluster that was restored from a snapshot revisions come again. Nobody restores one
	// so quickly.
	recentFor = time.Second
	// maxRecent is how much is remembered in that time, in bytes: some 4,000 records.
	maxRecent = 1 << 20
)

// recent has the records that were read or written lately, without their bodies: an update
// needs to know where its record is listed, and its caller has just read it. It is safe for
// concurrent use.
type recent struct {
	mu       sync.Mutex // guards what is below
	now, old map[backend.ID]backend.Record
	room     int       // of now, in bytes
	turned   time.Time // when now was begun
}

// note remembers a record, which has its version.
func (r *recent) note(rec backend.Record) {
	rec.Body, rec.Labels = nil, slices.Clone(rec.Labels) // its caller may change them
	size := 256 + len(rec.Owner)
	for _, label := range rec.Labels {
		size += 16 + len(label)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn(); size <= r.room {
		r.now[rec.ID] = rec
		r.room -= size
	}
}

// find is a record without its body, in this version; false if that is not remembered.
func (r *recent) find(id backend.ID, version uint64) (backend.Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	rec := r.now[id]
	if rec.Version != version {
		rec = r.old[id]
	}
	return rec, rec.Version == version && version > 0
}

// turn forgets what is old.
func (r *recent) turn() {
	age := time.Since(r.turned)
	if age < recentFor && r.now != nil {
		return
	}
	r.old = r.now
	if age >= 2*recentFor {
		r.old = nil
	}
	r.now, r.room, r.turned = make(map[backend.ID]backend.Record), maxRecent, time.Now()
}
