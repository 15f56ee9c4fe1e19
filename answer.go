package fob

import (
	"sync/atomic"
	"unsafe"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/usagelog"
)

// answer is what memory holds of one credential that was found: enough to answer with one
// hash and a few comparisons. It is immutable but for asOf and the usage.
type answer struct {
	// seen is SHA-256 over what was presented (of a native key its version, ID and
	// secret), made when it was first accepted. It is never the stored digest, so that a
	// hit costs one block whatever pepper or foreign hash the record is under.
	//
	// The numbers that package atomic touches come before everything that is smaller
	// than they are: on 32-bit platforms nothing else would align them.
	seen     Digest
	from, to int64         // accepted while from <= now < to, Unix milliseconds; never if equal
	asOf     int64         // monotonic; only through package atomic once it is shared
	use      usagelog.Cell // of a key
	form     int16         // as query.form
	refused  error         // why it is not accepted whatever the time

	key *Key // nil for a token

	token  *Token       // what is answered: the claims, as far as the key allows them
	claims *Token       // what was sealed; token itself, unless the key allows less
	parent *parentState // the key that it came from; nil if from none
}

// answer is the end of a verification: what e says at an instant. held says that e is in
// memory.
func (m *Manager) answer(e *answer, ms int64, held bool) (Credential, error) {
	if ms < e.from || ms >= e.to {
		return nil, e.refusal(ms)
	}
	if cell := e.cell(); cell != nil {
		if held {
			m.usage.Used(cell, ms)
		} else {
			m.usage.Count(cell.ID, ms)
		}
	}
	return e.credential(), nil
}

// at is what e says at an instant, where nobody counts its use.
func (e *answer) at(ms int64) (Credential, error) {
	if ms < e.from || ms >= e.to {
		return nil, e.refusal(ms)
	}
	return e.credential(), nil
}

func (e *answer) credential() Credential {
	if e.key != nil {
		return e.key
	}
	return e.token
}

// cell is where uses are counted: those of a token are its key's.
func (e *answer) cell() *usagelog.Cell {
	switch {
	case e.key != nil:
		return &e.use
	case e.parent != nil:
		return &e.parent.use
	}
	return nil
}

// refusal is why e is not accepted at an instant that lies outside of its bounds.
func (e *answer) refusal(ms int64) error {
	switch {
	case e.refused != nil:
		return e.refused
	case e.key != nil:
		return e.key.refusal(ms)
	}
	return e.outside(ms)
}

// confirm notes what the feed has proved of an answer that was found good after it
// (see Manager.moment). It writes no more often than the feed proves something.
func (e *answer) confirm(now clock.Moment) {
	if now.Synced > atomic.LoadInt64(&e.asOf) {
		atomic.StoreInt64(&e.asOf, now.Synced)
		e.tell(now.Wall(now.Synced))
	}
}

// tell makes the credential say as of when it is good.
func (e *answer) tell(asOf int64) {
	if e.key != nil {
		e.key.asOf.Store(asOf)
		return
	}
	e.token.asOf.Store(asOf)
}

// size is the memory that an answer takes beside itself, in bytes. The key of a token is
// shared, as a rule, which is nothing to rely on.
func (e *answer) size() int {
	if e.key != nil {
		return e.key.size()
	}
	n := e.claims.size()
	if e.parent != nil {
		n += int(unsafe.Sizeof(*e.parent)) + e.parent.key.size()
	}
	if e.token != e.claims {
		n += e.token.size()
	}
	return n
}
