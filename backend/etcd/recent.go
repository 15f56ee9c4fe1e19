package etcd

import (
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
	// maxRecent is how many records are remembered in that time. About 1 MB.
	maxRecent = 4096
)

// recent has the records that were read or written lately, without their bodies: an update
// needs to know where its record is listed, and its caller has just read it. It is safe for
// concurrent use.
type recent struct {
	mu       sync.Mutex // guards what is below
	now, old map[backend.ID]backend.Record
	turned   time.Time // when now was begun
}

// note remembers a record, which has its version.
func (r *recent) note(rec backend.Record) {
	rec.Body = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn(); len(r.now) < maxRecent {
		r.now[rec.ID] = rec
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
	r.now, r.turned = make(map[backend.ID]backend.Record), time.Now()
}
