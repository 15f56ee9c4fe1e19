package tokenring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"golang.org/x/sync/semaphore"
)

// Fetcher knows the public keys of another process: it fetches them from a source when
// they are needed, and when they have grown old. It starts no goroutine. A Fetcher is safe
// for concurrent use.
type Fetcher struct {
	source func(context.Context) ([]Key, error)
	clock  *clock.Clock
	gone   func()

	ring    atomic.Pointer[fetchedRing]
	nextTry atomic.Int64        // monotonic: from when on the keys are to be fetched again
	loading *semaphore.Weighted // taken while they are fetched; guards what is below
	fetched int64               // monotonic: when the last fetch ended
	failed  int                 // how many have failed in a row
	err     error               // of the last one
}

// fetchedRing is the keys and when they were fetched.
type fetchedRing struct {
	*Ring
	at int64 // monotonic
}

// NewFetcher makes a Fetcher that has asked source nothing yet. source is called by one
// caller at a time; whatever its error is, it is no reason to refuse a token. gone is called
// before other keys than before come into use: what was accepted by the old ones may be
// good no more.
func NewFetcher(source func(context.Context) ([]Key, error), c *clock.Clock, gone func()) *Fetcher {
	return &Fetcher{source: source, clock: c, gone: gone, loading: semaphore.NewWeighted(1)}
}

// When the keys are fetched, and how long they are good. The first caller who finds
// that they are due fetches them in its own time, and all others go on meanwhile with
// those that are known. A source that fails is left alone for fetchPause, doubled with
// each failure up to fetchPauseMax; while good keys are known, it is waited for no
// longer than fetchWait, doubled likewise.
const (
	refetchAfter   = 15 * time.Second
	keysGoodFor    = time.Hour // without keys that young nothing is accepted
	refetchUnknown = time.Second
	fetchPause     = time.Second
	fetchPauseMax  = time.Minute
	fetchWait      = 250 * time.Millisecond
	fetchWaitMax   = 8 * time.Second
)

// Good reports whether the keys that are known may be used at a moment.
func (f *Fetcher) Good(now clock.Moment) bool { return f.ring.Load().good(now) }

func (r *fetchedRing) good(now clock.Moment) bool {
	return r != nil && now.Age(r.at) < int64(keysGoodFor)
}

// Renew fetches the keys if those that are known may be used but are due to be fetched
// again, and nobody else does so. How that ends changes nothing for the caller.
func (f *Fetcher) Renew(ctx context.Context, now clock.Moment) {
	if f.Good(now) && now.Mono >= f.nextTry.Load() && f.loading.TryAcquire(1) {
		f.refetch(ctx)
	}
}

// Find returns the key of an ID that verifies at a moment. It fetches the keys if it does
// not know that one, or none that may be used. The error is errs.ErrTokenKey if there is
// no such key, and no rejection if the keys could not be fetched.
func (f *Fetcher) Find(ctx context.Context, id string, now clock.Moment) (*Key, error) {
	if id == "" {
		return nil, errs.ErrTokenKey
	}
	if r := f.ring.Load(); r.good(now) {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	// It has to be fetched, be it that the key is new, or that none is known.
	if err := f.loading.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: fetch token keys: %w", err)
	}
	defer f.loading.Release(1)
	now = f.clock.Now()
	r := f.ring.Load()
	good := r.good(now)
	if good {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	// Anybody can name a key that does not exist: that costs the source no more than a
	// call a second, whatever it answers.
	asked := now.Age(f.fetched) < int64(refetchUnknown)
	never := !good && f.err == nil // no keys, and no failure: it was not asked yet, or long ago
	if !asked || never {
		was := f.fetched
		if f.fetchFor(ctx) {
			if !good {
				f.fetched, f.err = was, nil // the next one has more time perhaps
			}
			return nil, fmt.Errorf("fob: fetch token keys: %w", context.DeadlineExceeded)
		}
		if err := ctx.Err(); err != nil && f.err != nil {
			return nil, fmt.Errorf("fob: fetch token keys: %w", err)
		}
	}
	if f.err != nil {
		return nil, fmt.Errorf("fob: fetch token keys: %w", f.err)
	}
	if r = f.ring.Load(); r != nil {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	return nil, errs.ErrTokenKey
}

// errSlowSource is what others are told of a fetch that ended with the time of its
// caller.
var errSlowSource = errors.New("the source gave no answer in time")

// refetch fetches keys while there are some that can be used. Its caller has taken
// loading.
func (f *Fetcher) refetch(ctx context.Context) {
	defer f.loading.Release(1)
	if f.clock.Now().Mono < f.nextTry.Load() {
		return // somebody was faster
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(fetchWait<<min(f.failed, 8), fetchWaitMax))
	defer cancel()
	f.fetch(ctx)
}

// errCallersTime is the cause of a fetch's end where it is its caller's deadline. Which
// clock fires first, the fetch's or the caller's own, is chance.
var errCallersTime = errors.New("the caller's deadline")

// fetchFor is fetch within the caller's deadline, and reports whether that ended it. That
// the caller hangs up ends nothing: whoever could end a fetch by that could keep new keys
// from everybody.
func (f *Fetcher) fetchFor(ctx context.Context) (outOfTime bool) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWaitMax)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		var end context.CancelFunc
		within, end = context.WithDeadlineCause(within, deadline, errCallersTime)
		defer end()
	}
	f.fetch(within)
	return f.err != nil && errors.Is(context.Cause(within), errCallersTime)
}

// fetch fetches the keys, and notes what came of it, for whoever has loading.
func (f *Fetcher) fetch(ctx context.Context) {
	began := f.clock.Now().Mono
	keys, err := f.ask(ctx)
	ended := f.clock.Now().Mono
	f.fetched = ended
	if err != nil {
		if ctx.Err() != nil {
			err = errSlowSource
		}
		f.err = err
		f.nextTry.Store(ended + int64(min(fetchPause<<min(f.failed, 8), fetchPauseMax)))
		f.failed++
		return
	}
	f.failed, f.err = 0, nil
	f.nextTry.Store(began + int64(refetchAfter))
	if old := f.ring.Load(); old != nil && !slices.EqualFunc(old.Keys, keys, sameKey) {
		f.gone() // a key that is gone takes its tokens along
	}
	f.ring.Store(&fetchedRing{Ring: New(keys, 0), at: began})
}

// sameKey reports whether a is b, and retires when b does.
func sameKey(a, b Key) bool { return a.ID == b.ID && a.RetireAt == b.RetireAt }

// errNoKeys is the failure of a source that has no public key.
var errNoKeys = errors.New("the source has no public key")

// ask calls the source.
func (f *Fetcher) ask(ctx context.Context) ([]Key, error) {
	keys, err := f.source(ctx)
	if err != nil {
		return nil, errs.Unclassified(err)
	}
	if len(keys) == 0 {
		// Of an issuer whose keys are secrets, or of a source that is not what it is taken
		// for. What is known goes on; nothing is a reason to refuse a token for good.
		return nil, errNoKeys
	}
	return keys, nil
}
