// Package fleet keeps, in the store, what the processes on one store have to know of each
// other: how old an answer may be in the most patient of them, how long any token lives,
// and how seldom usage is written.
//
// A process whose settings stay within the defaults need not say so. One whose settings
// allow more writes that into the store first, and until that is done it keeps to the
// default. So whoever reads a bound after a write of its own knows the bound of everybody
// who could hold an older answer: who raised it later began to read later, and found that
// write.
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
	"github.com/fobkit/fob/internal/records"
	"github.com/fobkit/fob/internal/retry"
)

// What everybody expects of a process that has said nothing, and the most that one can say.
const (
	// DefaultStaleness is how old an answer may be in a process that has said nothing.
	DefaultStaleness = 2 * time.Second
	// MaxStaleness is the most that the settings of any process allow, and so the bound
	// while nobody can be asked.
	MaxStaleness = 48 * time.Hour
	// DefaultTTL is how long a token of a process lives that has said nothing.
	DefaultTTL = time.Hour
	// MaxTTL is the longest life that any process can give a token.
	MaxTTL = 10 * 365 * 24 * time.Hour
	// DefaultUsageInterval is how often a process writes its usage that has said nothing.
	DefaultUsageInterval = time.Minute
)

// Config is what a process tells the others of its settings, and where.
type Config struct {
	Records records.Store
	Clock   *clock.Clock
	// Patience is how old an answer of this process may be while its store fails.
	Patience time.Duration
	// MaxTTL is the longest life of a token that this process accepts; zero for none.
	MaxTTL time.Duration
	// UsageInterval is how often this process writes its usage.
	UsageInterval time.Duration
	// Joined is told the instant (monotonic) from which on the fleet knows how patient
	// this process is, and clock.Forever when that is no longer sure. It is called by one
	// goroutine at a time, and must not call the Fleet.
	Joined func(at int64)
}

// Fleet is one process among those on a store. It is safe for concurrent use.
type Fleet struct {
	cfg Config

	mu     sync.Mutex // guards left, joined, and changes of ttl
	left   int        // how often it was left
	joined bool
	ttl    atomic.Int64 // the life of tokens, in nanoseconds, that the fleet is known to know of
}

// New makes a process that the fleet knows nothing of yet. It asks nothing of the store.
func New(cfg Config) *Fleet { return &Fleet{cfg: cfg} }

// Bounds is what holds for every process on the store.
type Bounds struct {
	Staleness time.Duration // how old an answer may be in any process
	// TTL is how long any token lives: a revocation of one must be known for as long as any
	// process accepts it. Nobody takes it back, for tokens may outlive their issuer.
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

// Leave makes nothing be believed for longer than everybody expects, until the fleet is
// joined anew: by whoever begins to after this, for what was read before counts no more.
func (f *Fleet) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left++
	f.ttl.Store(0)
	f.joined = false
	f.cfg.Joined(clock.Forever)
}

// Join raises the fleet's bound to the patience of this process, if that is higher.
func (f *Fleet) Join(ctx context.Context) error {
	return f.raise(ctx, Bounds{Staleness: f.cfg.Patience}, func() {
		if !f.joined {
			f.joined = true
			f.cfg.Joined(f.cfg.Clock.Now().Mono)
		}
	})
}

// LeaveIfLowered leaves the fleet if its bound is no longer known to be as high as this
// process needs: it was lowered by somebody who did not know of this process. It reports
// whether the fleet is to be joined anew.
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

// AnnounceTTL makes sure that the fleet knows of tokens that live so long. It is called
// before one is issued.
func (f *Fleet) AnnounceTTL(ctx context.Context, ttl time.Duration) error {
	if ttl <= DefaultTTL || int64(ttl) <= f.ttl.Load() {
		return nil
	}
	ttl = max(ttl, f.cfg.MaxTTL) // once for all of them
	return f.raise(ctx, Bounds{TTL: ttl}, func() {
		f.ttl.Store(max(f.ttl.Load(), int64(ttl)))
	})
}

// raise raises the fleet's bounds to want where they are lower, and calls known then under
// the lock, unless the fleet was left since this began.
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

// LongestTTL is how long any token lives that a process on this store accepts. Where that
// cannot be read it is MaxTTL: a mark that is kept for too long costs memory, one that is
// gone too early brings a token back.
func (f *Fleet) LongestTTL(ctx context.Context) time.Duration {
	have, err := f.Bounds(ctx)
	if err != nil {
		return MaxTTL
	}
	return max(have.TTL, f.cfg.MaxTTL)
}

// Lower takes the fleet's staleness back to bound, which is DefaultStaleness at least. A
// record that is corrupt is replaced.
func (f *Fleet) Lower(ctx context.Context, bound time.Duration) error {
	return retry.Do(ctx, func(bool) error {
		have, rec, err := f.read(ctx)
		if errors.Is(err, errs.ErrCorrupt) && rec.Kind == record.Fleet {
			// Nobody knows how long tokens live, either.
			have, err = Bounds{MaxStaleness + 1, MaxTTL}, nil
		}
		if err == nil && bound < have.Staleness {
			err = f.write(ctx, rec, Bounds{bound, have.TTL})
		}
		return retry.Raced(err)
	})
}

// Bounds reads the fleet's bounds. A record that cannot be understood is errs.ErrCorrupt.
func (f *Fleet) Bounds(ctx context.Context) (Bounds, error) {
	have, _, err := f.read(ctx)
	return have, err
}

// IsBounds reports whether an ID is that of the record of the fleet's bounds.
func IsBounds(id record.ID) bool {
	return backend.Kind(id[0]) == record.Fleet && id == boundsRecord()
}

func boundsRecord() record.ID { return record.Named(record.Fleet, "staleness") }

// read is Bounds, with their record, which is empty where nobody has raised one.
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

// write writes the bounds over rec, which is what read found.
func (f *Fleet) write(ctx context.Context, rec backend.Record, to Bounds) error {
	w := record.NewBody()
	w.Number(record.FieldStaleness, roundedUp(to.Staleness))
	w.Number(record.FieldMaxTTL, roundedUp(to.TTL))
	rec.ID = boundsRecord()
	return f.replace(ctx, rec, w)
}

// find reads a record of the fleet; one without a version where there is none.
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

// replace writes a body over rec, which is what find found, with its ID.
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

// roundedUp is d in milliseconds.
func roundedUp(d time.Duration) uint64 { return uint64((d + time.Millisecond - 1).Milliseconds()) }
