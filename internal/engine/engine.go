// Package engine answers verifications: from memory for as long as that may be believed,
// and else by asking whoever knows how the answer is loaded from the store. It knows
// nothing of what is verified: neither keys nor tokens, nor how they are written.
//
// Each idea has a file: how old an answer may be (trust.go), what is remembered and what
// ends it (memory.go), which records an answer depends on (newest.go), where an answer
// comes from, also while the store fails (find.go), and how many that want the same answer
// share one load (flights.go).
package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
)

// Digest is SHA-256 over what was presented, or over the part of it that tells it from
// everything else that is remembered in its place.
type Digest = digest.Digest

// Answer is what memory holds of something that was found: enough to answer with one hash
// and a few comparisons. It is immutable but for its age and what Body itself lets change.
type Answer[B any] struct {
	// Seen is made of what was presented when it was first accepted. It is never the digest
	// that is stored, so that a hit costs one block whatever the record is under.
	Seen Digest

	// The numbers that package atomic touches come before everything that is smaller than
	// they are: on 32-bit platforms nothing else would align them.
	asOf int64 // monotonic; only through package atomic once it is shared
	// Version is that of the record by whose ID the answer is found; zero if it is found
	// otherwise.
	Version uint64
	// Body is what was found.
	Body B
	// Told is where the Unix milliseconds are kept as of which Body is known to be good;
	// nil if nobody asks.
	Told *atomic.Int64
	// Form is the form of what was presented, as in Lookup.
	Form int16
}

// AsOf is the instant (monotonic) as of which the answer is known to be good, by what was
// read. The feed may have proved more.
func (a *Answer[B]) AsOf() int64 { return atomic.LoadInt64(&a.asOf) }

// Confirm notes what the feed has proved of an answer that was found good after it (see
// [Engine.Now]). It writes no more often than the feed proves something.
func (a *Answer[B]) Confirm(now clock.Moment) {
	if now.Synced > atomic.LoadInt64(&a.asOf) {
		atomic.StoreInt64(&a.asOf, now.Synced)
		a.tell(now.Wall(now.Synced))
	}
}

func (a *Answer[B]) tell(ms int64) {
	if a.Told != nil {
		a.Told.Store(ms)
	}
}

// Absence is what is remembered of something that was not accepted, and of which memory
// has no Answer.
type Absence[B any] struct {
	asOf int64
	// Seen is what was presented, where it is found by half of that.
	Seen Digest
	// Err is why it was refused.
	Err error
	// Body is what was found all the same: under its ID, say.
	Body B
	// Form is as in Lookup.
	Form int16
}

// Loader knows how the answer to one form of what is presented is made. It is safe for
// concurrent use.
type Loader[B any] interface {
	// Load finds the answer out from the store, in two ways that end it: with
	// [Engine.Remember], or with an error, be it that of [Engine.Refuse]. It says of each
	// record that it reads that it is about to ([Reading.Reads]). An error that is
	// errs.ErrRejected is a finding; any other says that it could not be found out.
	Load(ctx context.Context, q *Lookup[B]) (*Answer[B], error)
	// Absent returns why q is refused, if what is remembered of its place says so, else nil.
	Absent(q *Lookup[B], found *Absence[B]) error
}

// Lookup is one verification that memory could not answer at once. It is for one goroutine.
type Lookup[B any] struct {
	Reading
	Loader    Loader[B]
	Memory    *cache.Cache[Answer[B]] // where the answer is kept, one of AddMemory
	At        cache.Key               // and the place in it
	Form      int16                   // answers of another form are none to this lookup
	Seen      Digest
	Presented string
	Old       *Answer[B] // the answer in memory, if it is too old to be believed

	ticket, absentTicket cache.Ticket
}

// Config is what an Engine is made with. Nothing in it may be missing.
type Config struct {
	MaxStaleness time.Duration // how old an answer may be
	StaleIfError time.Duration // by how much older while the store fails; zero: not at all
	Expected     time.Duration // how old every process takes the answers of any other one to be

	Entries int   // the most answers in each memory
	Bytes   int64 // and their memory

	Clock *clock.Clock
	// Running ends with the loads that go on although their callers have left.
	Running context.Context
	// Hold makes whoever ends Running wait for such a load, until release is called. ok is
	// false when there may be no more of them.
	Hold func() (release func(), ok bool)
	// Failed is told of such a load that panicked.
	Failed func(error)
}

// Engine answers lookups whose answers have a Body of type B. It is safe for concurrent
// use, once its memories and parts are added.
type Engine[B any] struct {
	Trust
	cfg Config
	memory[B]
	newest  newest
	flights *cache.Flights[flightKey, error] // what is handed over is errs.Unchecked

	storeFailed atomic.Int64 // monotonic: when the store last failed to answer

	rechecked, stale, refused cache.Counter
}

// New makes an Engine without a memory. What cannot work in cfg is an error.
func New[B any](cfg Config) (*Engine[B], error) {
	e := &Engine[B]{
		cfg:       cfg,
		flights:   cache.NewFlights[flightKey, error](),
		rechecked: cache.NewCounter(), stale: cache.NewCounter(), refused: cache.NewCounter(),
	}
	e.Trust.start(&cfg)
	e.storeFailed.Store(clock.Never)
	var err error
	e.absent, err = cache.New(cache.Config[Absence[B]]{Entries: min(cfg.Entries, absentEntries)})
	if err != nil {
		return nil, cacheError(err)
	}
	e.newest.start(&e.memory, cfg.Entries)
	return e, nil
}

func cacheError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fob: verification cache: %w", err)
}

// AddMemory makes a memory of answers. size is what an answer takes beside itself, in
// bytes; nil is nothing. byID says that the answers of which Version is set are found by the
// ID of their record; one memory of an Engine can be so.
func (e *Engine[B]) AddMemory(size func(*Answer[B]) int, byID bool) (*cache.Cache[Answer[B]], error) {
	made, err := cache.New(cache.Config[Answer[B]]{Entries: e.cfg.Entries, Bytes: e.cfg.Bytes, Size: size})
	if err != nil {
		return nil, cacheError(err)
	}
	e.memories = append(e.memories, made)
	if byID {
		e.byID = made
	}
	return made, nil
}

// Now reads the clock. What the feed has proved is read with it, and before anything is
// looked up: an answer that is found good after that had not been changed by then.
func (e *Engine[B]) Now() clock.Moment {
	synced := e.synced.Load()
	now := e.cfg.Clock.Now()
	now.Synced = synced
	return now
}

// Forget makes every answer that depends on these records be found anew. Once it has
// returned, nothing that begins later uses one from before.
func (e *Engine[B]) Forget(ids ...ID) { e.newest.forget(ids...) }

// Clear makes every answer be found anew.
func (e *Engine[B]) Clear() { e.newest.clear() }

// Saw notes that a record was read from the store, by anybody, and at which version; zero
// says that there is none. When it has returned, no answer in memory is made from another
// version of it, nor will one be.
func (e *Engine[B]) Saw(id ID, version uint64) { e.newest.saw(id, version) }

// Stats counts what an Engine did since New.
type Stats struct {
	Absent    cache.Stats   // the memory of what was refused
	Refused   uint64        // lookups that it answered
	Rechecked uint64        // lookups of which memory had an answer that was too old
	Collapsed uint64        // lookups that waited for another one's load
	Stale     uint64        // old answers that were given because the store failed
	FeedAge   time.Duration // as [clock.Moment.FeedAge]
}

// Stats returns the counts so far.
func (e *Engine[B]) Stats() Stats {
	return Stats{
		Absent: e.absent.Stats(), Refused: e.refused.Load(), Rechecked: e.rechecked.Load(),
		Collapsed: e.flights.Collapsed(), Stale: e.stale.Load(), FeedAge: e.Now().FeedAge(),
	}
}
