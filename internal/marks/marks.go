// Package marks holds the marks of a store: records that revoke credentials without a change
// of the credentials' own records. It has the set of the marks that are known here
// (marks.go, table.go), reads those into it that are missing and those that the store's feed
// names (follow.go), and writes marks (ledger.go). It does not know what a credential is, nor
// how a token is checked: its callers ask whether a mark revokes what they hold.
package marks

import (
	"maps"
	"sync"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
)

// Set is what this process knows of the marks of a store, which are records that revoke
// credentials without changing their own records: marks of single tokens and families, marks
// that revoke what an issuer issued before an instant, and the epochs of subjects. Only what
// was revoked has a mark, so a Set that knows all of them answers for every credential:
// nothing has to be read from the store to know that a token is not revoked.
//
// A Set says when it does not know a mark. While it is being filled, it knows only of the
// tokens and families whose marks it has; and it does not know a record that the feed has
// named ([Set.Name]) until that was read. Whoever asks has to read the store then. So a
// process serves from the beginning, however many marks there are, and a revocation that
// the feed names holds at once. A Set is safe for concurrent use.
type Set struct {
	Follows bool                // there is a feed; without one the set knows nothing
	forget  func(...backend.ID) // drops the answers in memory that were made from these records

	mu sync.RWMutex // guards all below
	// brief has what is known of tokens and families, which is when their marks may be
	// purged, and of subjects and accounts, which is their epoch.
	brief table
	// whole has the marks of issuers, those of whatever was disabled at some time, and those
	// that cannot be read. There are few.
	whole map[record.ID]Mark
	// named are the records that have changed and were not read since.
	named   map[record.ID]naming
	namings uint64
	most    int // how many were named at a time, since named was made
	// told are the records of which Problem was told that they cannot be read.
	told map[record.ID]struct{}
	// complete says that all marks of the store that are not in named are known. begun is
	// how often the set has begun to be filled.
	complete bool
	begun    uint64

	toFill, toSettle chan struct{} // have one when there is something to read
	needed           chan struct{} // has one when a mark was asked for that was named and is not read
}

// manyNamed is how many named records there may have been before their map is made anew.
const manyNamed = 4096

// naming is when the feed has named a record.
type naming struct {
	number uint64 // higher for one that was named later
	at     clock.Moment
}

// New makes a set without marks. follows says that there is a feed. forget drops the
// answers in memory that were made from a mark.
func New(follows bool, forget func(...backend.ID)) *Set {
	return &Set{
		Follows: follows, forget: forget, whole: make(map[record.ID]Mark), named: make(map[record.ID]naming),
		told: make(map[record.ID]struct{}), toFill: make(chan struct{}, 1), toSettle: make(chan struct{}, 1),
		needed: make(chan struct{}, 1),
	}
}

// Get returns the mark whose record has an ID; the zero Mark if there is none. known is
// false if the set does not know.
func (s *Set) Get(id record.ID) (found Mark, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found = s.at(id)
	if found.Before == clock.Forever {
		return found, true // it is not taken back
	}
	_, changed := s.named[id]
	if changed {
		ring(s.needed)
	}
	return found, s.complete && !changed
}

// at returns what the set has of a mark.
func (s *Set) at(id record.ID) Mark {
	if found, ok := s.whole[id]; ok {
		return found
	}
	value, ok := s.brief.get(id)
	switch {
	case !ok:
		return Mark{}
	case isHolder(backend.Kind(id[0])):
		return Mark{Epoch: value}
	default:
		return Mark{Before: clock.Forever, PurgeAt: int64(value)}
	}
}

// set makes the set have a mark.
func (s *Set) set(id record.ID, to Mark) {
	to.Reason = ""
	switch {
	case to.Bad == nil && to.Before == clock.Forever:
		delete(s.whole, id)
		s.brief.put(id, uint64(to.PurgeAt))
	case to.Bad != nil || to.State != 0 || !isHolder(backend.Kind(id[0])):
		s.brief.drop(id)
		s.whole[id] = to
	default:
		delete(s.whole, id)
		s.brief.put(id, to.Epoch)
	}
}

// Raise adds what a mark says to the set. An older state never replaces a newer one,
// because epochs and instants only rise. The answers that were made from the older state
// are dropped before any caller can see the new one and tell of it.
func (s *Set) Raise(id record.ID, to Mark) {
	if !s.Follows {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raise(id, to) {
		s.forget(id)
	}
}

// raise adds what a mark says, and reports whether that is news.
func (s *Set) raise(id record.ID, to Mark) bool {
	if old := s.at(id); old.Bad == nil {
		if old.Covers(&to) {
			return false
		}
		to = to.Join(old) // what one of the two revokes stays revoked
	}
	s.set(id, to)
	return true
}

// Name notes that records have changed, some of which may be marks: what the set had of them
// is no longer sure, and [Ledger.KeepSettled] reads them. Whoever names them drops the
// answers that were made from them afterwards. at is when the feed told of them.
func (s *Set) Name(ids []record.ID, at clock.Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if Is(id) {
			s.name(id, at)
		}
	}
}

// name notes that a record has to be read. at is the zero Moment if it is not known that it
// has changed.
func (s *Set) name(id record.ID, at clock.Moment) {
	s.namings++
	s.named[id] = naming{s.namings, at}
	s.most = max(s.most, len(s.named))
	ring(s.toSettle)
}

// ring tells whoever reads from bell that there is something to do. It waits for nobody.
func ring(bell chan<- struct{}) {
	select {
	case bell <- struct{}{}:
	default: // it was told, and has not begun
	}
}

// namedNow returns at most most of the records that were named and not read since.
func (s *Set) namedNow(most int) (ids []record.ID, as map[record.ID]naming) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	as = make(map[record.ID]naming, min(most, len(s.named)))
	for id, n := range s.named {
		if len(ids) == most {
			break
		}
		ids, as[id] = append(ids, id), n
	}
	return ids, as
}

// settle puts the state of a record, as it was read after it was named, into the set. It
// reports whether a mark that could not be read before can be read now.
func (s *Set) settle(id record.ID, as naming, to Mark) (mended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, told := s.told[id]; told && to.Bad == nil {
		delete(s.told, id)
		mended = true
	}
	switch {
	case to.Bad != nil:
		s.told[id] = struct{}{}
		s.set(id, to)
	case to != Mark{}:
		s.raise(id, to)
	case s.named[id].number == as.number:
		// The mark was purged, because what it revoked has expired. If it was named again
		// meanwhile, it may have been written again, by this process perhaps.
		s.brief.drop(id)
		delete(s.whole, id)
	}
	if s.named[id].number == as.number {
		delete(s.named, id)
	}
	if s.most > manyNamed && len(s.named) == 0 {
		s.most, s.named = 0, make(map[record.ID]naming) // a map never gets smaller
	}
	return mended
}

// Begin notes that the feed begins, or begins anew. From now on the feed names every
// change, but it may have missed some before: [Ledger.KeepFilled] reads all marks. Until that is
// done, the set knows only of the marks which it has and which are not taken back.
func (s *Set) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = false
	s.begun++
	for id := range s.told {
		s.name(id, clock.Moment{})
	}
	ring(s.toFill)
}

// filling returns the number of the filling that is under way.
func (s *Set) filling() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.begun
}

// fill puts marks that were read into the set that is being filled. bad are the records
// that could not be read. They are named, because the feed may have told meanwhile that
// they were written anew.
func (s *Set) fill(ids []record.ID, found []Mark, bad []record.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range ids {
		s.raise(id, found[i])
	}
	for _, id := range bad {
		s.name(id, clock.Moment{})
	}
}

// filled notes that the filling with a number is done. If another one has begun since,
// that one is still to be done.
func (s *Set) filled(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete = s.begun == number
}

// atOnce is of how many buckets dropOver looks at the entries while others wait.
const atOnce = 256

// dropOver removes the marks of what has expired by every clock. It reads nothing.
func (s *Set) dropOver(now int64) {
	drop := func(from int) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.brief.dropIf(from, atOnce, func(kind byte, value uint64) bool {
			k := Mark{PurgeAt: int64(value)}
			return backend.Kind(kind) == record.Mark && k.over(now)
		})
	}
	for at := drop(0); at > 0; {
		at = drop(at)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.whole, func(_ record.ID, k Mark) bool { return k.over(now) })
}

// Known returns how many marks the set has, how many of those that were named are still to
// be read, and whether the set knows all others.
func (s *Set) Known() (marks, named int, complete bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.brief.n + len(s.whole), len(s.named), s.complete
}
