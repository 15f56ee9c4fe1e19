// Package fleet keeps in the store what the processes on one store have to know of each
// other: how old an answer may be in the most patient process, how long any token lives
// (fleet.go), and how rarely usage is written (usage.go). It knows neither answers nor
// tokens, and it decides nothing from the bounds: its callers do.
//
// A process whose settings stay within the defaults need not announce them. A process whose
// settings exceed a default writes them into the store first, and keeps to the default
// until the write has succeeded. So if a process writes a change and then reads a bound, it
// knows the bound of every process that could hold an older answer. A process that raises
// the bound later keeps for longer only those answers that it reads later still, and these
// contain the change.
package fleet

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/retry"
)

// What every process expects of a process that has announced nothing, and the maximum that
// a process can announce.
const (
	// DefaultStaleness is how old an answer may be in a process that has announced nothing.
	DefaultStaleness = 2 * time.Second
	// MaxStaleness is the maximum that the settings of a process allow, and so the bound
	// that holds while nobody can be asked.
	MaxStaleness = 48 * time.Hour
	// DefaultTTL is how long a token of a process that has announced nothing lives.
	DefaultTTL = time.Hour
	// MaxTTL is the longest life that any process can give a token.
	MaxTTL = 10 * 365 * 24 * time.Hour
	// DefaultUsageInterval is how often a process that has announced nothing writes its
	// usage.
	DefaultUsageInterval = time.Minute
)

// Config is the settings that a process announces, and the store in which it does so.
type Config struct {
	Records recordstore.Store
	Clock   *clock.Clock
	// Patience is how old an answer of this process may be while its store fails.
	Patience time.Duration
	// MaxTTL is the longest life of a token that this process accepts; zero for none.
	MaxTTL time.Duration
	// UsageInterval is how often this process writes its usage.
	UsageInterval time.Duration
	// Joined is told the instant (monotonic) since which the fleet knows how patient this
	// process is, and clock.Forever when that is no longer certain. It is called by one
	// goroutine at a time, and must not call the Fleet.
	Joined func(at int64)
}

// Fleet is one process among those on a store. It is safe for concurrent use.
type Fleet struct {
	cfg Config

	mu     sync.Mutex // guards left, joined, and changes of ttl
	left   int        // how often Leave was called
	joined bool
	ttl    atomic.Int64 // the longest life of tokens, in nanoseconds, that this process knows to be announced

	asking chan struct{} // has one for each read of the bounds that is under way
	turn   sync.Mutex    // guards next
	next   *answer       // of the read that begins next, if somebody waits for it
}

// New makes a Fleet for a process that has announced nothing yet. It does not ask the
// store.
func New(cfg Config) *Fleet { return &Fleet{cfg: cfg, asking: make(chan struct{}, maxAsking)} }

// Bounds are the bounds that hold for every process on the store.
type Bounds struct {
	Staleness time.Duration // how old an answer may be in any process
	// TTL is how long any token lives: a revocation must be known for as long as some
	// process accepts the revoked token. Nobody lowers this bound, because tokens may
	// outlive the process that issued them.
	TTL time.Duration
}

// Joined reports whether this process may be as patient as it is configured.
func (f *Fleet) Joined() bool {
	if f.cfg.Patience <= DefaultStaleness {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.joined
}

// Leave makes this process believe no answer for longer than every process expects, until
// it joins the fleet again. A Join that began before this Leave does not count, because
// what it has read may be out of date.
func (f *Fleet) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left++
	f.ttl.Store(0)
	f.joined = false
	f.cfg.Joined(clock.Forever)
}

// Join raises the fleet's bound to the patience of this process, if the bound is lower.
func (f *Fleet) Join(ctx context.Context) error {
	return f.raise(ctx, Bounds{Staleness: f.cfg.Patience}, func() {
		if !f.joined {
			f.joined = true
			f.cfg.Joined(f.cfg.Clock.Now().Mono)
		}
	})
}

// LeaveIfLowered leaves the fleet if its bound is no longer known to be as high as this
// process needs: somebody who did not know of this process may have lowered it. It reports
// whether this process has to join the fleet again.
func (f *Fleet) LeaveIfLowered(ctx context.Context) bool {
	if f.cfg.Patience <= DefaultStaleness {
		return false
	}
	if have, err := f.Bounds(ctx); err == nil && have.Staleness >= f.cfg.Patience {
		return false
	}
	f.Leave()
	return true
}

// AnnounceTTL makes sure that the fleet knows of tokens that live for ttl. It must be
// called before such a token is issued.
func (f *Fleet) AnnounceTTL(ctx context.Context, ttl time.Duration) error {
	if ttl <= DefaultTTL || int64(ttl) <= f.ttl.Load() {
		return nil
	}
	ttl = max(ttl, f.cfg.MaxTTL) // announces the longest at once, so that no further write is needed
	return f.raise(ctx, Bounds{TTL: ttl}, func() {
		f.ttl.Store(max(f.ttl.Load(), int64(ttl)))
	})
}

// raise raises the fleet's bounds to want where they are lower. Then it calls known under
// the lock, unless Leave was called since raise began.
func (f *Fleet) raise(ctx context.Context, want Bounds, known func()) error {
	f.mu.Lock()
	left := f.left
	f.mu.Unlock()
	err := retry.Do(ctx, func(bool) error {
		have, rec, err := f.read(ctx)
		if err != nil || have.Staleness >= want.Staleness && have.TTL >= want.TTL {
			return err
		}
		return retry.Raced(f.write(ctx, rec, Bounds{max(have.Staleness, want.Staleness), max(have.TTL, want.TTL)}))
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == left {
		known()
	}
	return nil
}

// LongestTTL returns how long any token lives that a process on this store accepts. If that
// cannot be read, it is MaxTTL: a mark that is kept for too long costs memory, but a mark
// that is purged too early makes a revoked token valid again.
func (f *Fleet) LongestTTL(ctx context.Context) time.Duration {
	have, err := f.Bounds(ctx)
	if err != nil {
		return MaxTTL
	}
	return max(have.TTL, f.cfg.MaxTTL)
}

// Lower lowers the fleet's staleness to bound, which must be at least DefaultStaleness. It
// replaces a record that is corrupt.
func (f *Fleet) Lower(ctx context.Context, bound time.Duration) error {
	return retry.Do(ctx, func(bool) error {
		have, rec, err := f.read(ctx)
		if errors.Is(err, errs.ErrCorrupt) && rec.Kind == record.Fleet {
			// How long tokens live cannot be read either.
			have, err = Bounds{MaxStaleness + 1, MaxTTL}, nil
		}
		if err == nil && bound < have.Staleness {
			err = f.write(ctx, rec, Bounds{bound, have.TTL})
		}
		return retry.Raced(err)
	})
}

// IsBounds reports whether an ID is that of the record of the fleet's bounds.
func IsBounds(id record.ID) bool {
	return backend.Kind(id[0]) == record.Fleet && id == boundsRecord()
}

func boundsRecord() record.ID { return record.Named(record.Fleet, "staleness") }

// read returns the bounds and their record. The record is empty if nobody has raised a
// bound.
func (f *Fleet) read(ctx context.Context) (Bounds, backend.Record, error) {
	found := Bounds{DefaultStaleness, DefaultTTL}
	rec, err := f.find(ctx, boundsRecord(), "read the fleet's bounds")
	if err != nil || rec.Version == 0 {
		return found, rec, err
	}
	r, err := record.Open(&rec, record.Fleet)
	if err != nil {
		return Bounds{}, rec, err
	}
	for field, v := range r.Fields {
		switch ms := r.Millis(v); {
		case field == record.FieldStaleness && ms <= MaxStaleness.Milliseconds():
			found.Staleness = max(found.Staleness, clock.MillisOf(ms))
		case field == record.FieldMaxTTL && ms <= MaxTTL.Milliseconds():
			found.TTL = max(found.TTL, clock.MillisOf(ms))
		default:
			r.Bad = true
		}
	}
	if r.Bad {
		return Bounds{}, rec, record.Corrupt(&rec, "bounds")
	}
	return found, rec, nil
}

// write writes the bounds over rec, which is the record that read returned.
func (f *Fleet) write(ctx context.Context, rec backend.Record, to Bounds) error {
	w := record.NewBody()
	w.Number(record.FieldStaleness, millisRoundedUp(to.Staleness))
	w.Number(record.FieldMaxTTL, millisRoundedUp(to.TTL))
	rec.ID = boundsRecord()
	return f.replace(ctx, rec, w)
}

// find reads a record of the fleet. It returns a record without a version if there is none.
func (f *Fleet) find(ctx context.Context, id record.ID, doing string) (backend.Record, error) {
	rec, err := f.cfg.Records.Get(ctx, id)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		return backend.Record{}, nil
	case err != nil:
		return rec, errs.OfStore(doing, err)
	}
	return rec, nil
}

// replace writes a body over rec, which is the record that find returned, with its ID set.
func (f *Fleet) replace(ctx context.Context, rec backend.Record, body *record.Writer) error {
	cond := backend.IfVersion(rec.Version)
	if rec.Version == 0 {
		cond = backend.IfAbsent()
		rec.Kind, rec.Created = record.Fleet, clock.Millis(f.cfg.Clock.Read())
	}
	body.Finish(&rec)
	_, err := f.cfg.Records.Replace(ctx, rec, cond)
	return err
}

// millisRoundedUp returns d in milliseconds, rounded up.
func millisRoundedUp(d time.Duration) uint64 {
	return uint64((d + time.Millisecond - 1).Milliseconds())
}
