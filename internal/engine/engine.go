// Package engine answers verifications. It takes an answer from its memory, which is a
// cache, for as long as the answer may be believed; otherwise it asks a Loader, which knows
// how the answer is loaded from the store. It knows nothing of what is verified: neither
// keys nor tokens, nor how their records are written.
//
// Each idea has a file: how old an answer may be (trust.go), what memory holds and what
// ends an entry (memory.go), which records an answer depends on (newest.go), where an
// answer comes from, also while the store fails (find.go), and how several lookups of the
// same answer share one load (collapse.go).
package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
)

// Digest is SHA-256 over the text that was presented, or over the part of the text by which
// it differs from every other text that has the same place in memory.
type Digest = digest.Digest

// Tail is the end of a text, a checksum say: as much as the entry has room for beside Form.
type Tail [6]byte

// Answer is the cache entry of something that was found: enough to answer a verification
// with one hash and a few comparisons. It is immutable, except for its age and for what
// Body itself allows to change.
//
// What a hit looks at comes first, so that it lies in two lines of memory, of which the
// entry of the cache begins the first.
type Answer[B any] struct {
	// The numbers that package atomic touches come before all smaller fields: on 32-bit
	// platforms nothing else would align them.
	asOf int64 // monotonic; only through package atomic once it is shared
	// Form is the form of what was presented, as in Lookup.
	Form int16
	// Tail is the part of the presented text that Seen is not made over, if it has one.
	Tail Tail
	// Seen is the digest of the text that was presented when the answer was first accepted.
	// It is never the digest in the store, so that a cache hit costs one block of SHA-256,
	// whatever pepper or hash the record is under.
	Seen Digest
	// Body is what was found.
	Body B
	// Version is the version of the record, if the answer is found by the ID of one record;
	// zero if it is found in another way.
	Version uint64
	// Told is where the engine stores the time, in Unix milliseconds, as of which Body is
	// known to be good; nil if nobody reads that time.
	Told *atomic.Int64
}

// AsOf is the instant (monotonic) as of which the answer is known to be good, from what was
// read for it and from Confirm. The feed may have proved a later instant.
func (a *Answer[B]) AsOf() int64 { return atomic.LoadInt64(&a.asOf) }

// Confirm notes that an answer was still good at the instant up to which the feed has
// proved that it told of every change. The answer must have been found in memory after the
// feed proved that; [Engine.Now] sees to it. Confirm writes no more often than the feed
// proves something.
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

// Absence is the cache entry of a lookup that was refused and has no Answer.
type Absence[B any] struct {
	asOf int64
	// Seen is the digest of the text that was presented, because a place in memory is only
	// half of that digest.
	Seen Digest
	// Err is why it was refused.
	Err error
	// Body is what was found although the lookup was refused: the record under the same ID,
	// say.
	Body B
	// Form is as in Lookup.
	Form int16
}

// Loader knows how to load the answer to one form of presented text. It is safe for
// concurrent use.
type Loader[B any] interface {
	// Load loads the answer from the store. It ends with [Engine.Remember], or with an
	// error, which may be that of [Engine.Refuse]. It calls [Reading.Reads] before it reads
	// a record. An error that is errs.ErrRejected is a result; any other error means that
	// there is none.
	Load(ctx context.Context, q *Lookup[B]) (*Answer[B], error)
	// Absent returns why q is refused, if the entry that was found in the place of q is
	// about the text of q; otherwise nil.
	Absent(q *Lookup[B], found *Absence[B]) error
}

// Lookup is one verification that memory could not answer at once. It is for one goroutine.
type Lookup[B any] struct {
	Reading
	Loader    Loader[B]
	Memory    *cache.Cache[Answer[B]] // in which the answer is cached; AddMemory made it
	At        cache.Key               // the place of the answer in Memory
	Form      int16                   // an answer of another form is no answer to this lookup
	Seen      Digest
	Tail      Tail // as in Answer
	Presented string
	Old       *Answer[B] // the answer in memory, if it is too old to be believed

	ticket, absentTicket cache.Ticket
	// mixed says that one of the records changed while the answer was loaded: the answer may
	// be made from states of two records that never were at the same time.
	mixed bool
}

// Config is what an Engine is made with. Every field must be set.
type Config struct {
	MaxStaleness time.Duration // how old an answer may be
	StaleIfError time.Duration // how much older an answer may be while the store fails; zero: not older
	Expected     time.Duration // how old an answer may be in any process, as all processes expect

	Entries int   // the maximum of answers in each memory
	Bytes   int64 // the maximum of bytes that the answers of each memory take

	Clock *clock.Clock
	// Running is the context of loads that go on although their callers have left. When it
	// ends, they end.
	Running context.Context
	// Hold makes whoever ends Running wait for such a load until release is called. ok is
	// false if no more of these loads may run.
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
	flights *cache.Flights[flightKey, error] // a flight ends with the errs.Unchecked of its load

	lookups sync.Pool // of *Lookup[B] that are over

	storeFailed atomic.Int64 // monotonic: when the store last failed to answer

	rechecked, stale, refused cache.Counter
}

// New makes an Engine without a memory. It fails if the values of cfg cannot work.
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

// AddMemory makes a memory of answers. size returns how many bytes an answer takes in
// addition to the Answer itself; a nil size means none. byID says that an answer whose
// Version is set is found by the ID of its record; at most one memory of an Engine may be
// made so.
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

// Now reads the clock. It reads what the feed has proved before it reads the clock, and so
// before anything is looked up: an answer that is found in memory afterwards had not
// changed by the instant that the feed has proved.
func (e *Engine[B]) Now() clock.Moment { return e.NowSince(e.Proved()) }

// Proved returns the instant (monotonic) up to which the feed has proved that it told of
// every change.
func (e *Engine[B]) Proved() int64 { return e.synced.Load() }

// NowSince is Now for a caller that has called Proved before it looked something up, and
// reads the clock afterwards. An answer that was found is then a little older than at the
// look, and is not believed for longer.
func (e *Engine[B]) NowSince(proved int64) clock.Moment {
	now := e.cfg.Clock.Now()
	now.Synced = proved
	return now
}

// Forget makes the engine drop every answer that depends on these records. Once Forget has
// returned, no lookup that begins later uses such an answer.
func (e *Engine[B]) Forget(ids ...ID) { e.newest.forget(ids...) }

// Clear makes the engine drop every answer.
func (e *Engine[B]) Clear() { e.newest.clear() }

// Saw notes that somebody read a record from the store, and at which version; version zero
// means that there is no such record. Once Saw has returned, no answer in memory is made
// from another version of the record, and none will be.
func (e *Engine[B]) Saw(id ID, version uint64) { e.newest.saw(id, version) }

// Stats counts what an Engine did since New.
type Stats struct {
	Absent    cache.Stats   // of the memory of refused lookups
	Refused   uint64        // lookups that the memory of refused lookups answered
	Rechecked uint64        // lookups whose answer in memory was too old
	Collapsed uint64        // lookups that waited for the load of another lookup
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
