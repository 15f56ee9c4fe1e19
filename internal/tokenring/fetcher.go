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

// Fetcher holds the public keys of another process. It fetches them from a source when they
// are needed, and when they have grown old. It starts no goroutine. A Fetcher is safe for
// concurrent use.
type Fetcher struct {
	source func(context.Context) ([]Key, error)
	clock  *clock.Clock
	gone   func()

	ring    atomic.Pointer[fetchedRing]
	nextTry atomic.Int64        // monotonic: when the keys are to be fetched again
	loading *semaphore.Weighted // held while the keys are fetched; guards the fields below
	fetched int64               // monotonic: when the last fetch ended
	failed  int                 // how many fetches have failed in a row
	err     error               // of the last fetch
}

// fetchedRing is a ring of fetched keys, and when they were fetched.
type fetchedRing struct {
	*Ring
	at int64 // monotonic
}

// NewFetcher makes a Fetcher that has not asked source yet. source is called by one
// goroutine at a time. An error of source is never a rejection of a token. gone is called
// before the keys are replaced by different ones, because what was accepted by the old keys
// may be valid no more.
func NewFetcher(source func(context.Context) ([]Key, error), c *clock.Clock, gone func()) *Fetcher {
	return &Fetcher{source: source, clock: c, gone: gone, loading: semaphore.NewWeighted(1)}
}

// When the keys are fetched, and for how long they may be used. The first caller that finds
// the keys due for renewal fetches them in its own time, and all others go on with the
// known keys meanwhile. After a failure the source is not asked for fetchPause, doubled
// with each further failure up to fetchPauseMax. While there are keys that may be used, a
// fetch may take fetchWait, doubled in the same way up to fetchWaitMax.
const (
	refetchAfter   = 15 * time.Second
	keysGoodFor    = time.Hour // older keys accept nothing
	refetchUnknown = time.Second
	fetchPause     = time.Second
	fetchPauseMax  = time.Minute
	fetchWait      = 250 * time.Millisecond
	fetchWaitMax   = 8 * time.Second
)

// Good reports whether there are keys that may be used at a moment.
func (f *Fetcher) Good(now clock.Moment) bool { return f.ring.Load().good(now) }

func (r *fetchedRing) good(now clock.Moment) bool {
	return r != nil && now.Age(r.at) < int64(keysGoodFor)
}

// Renew fetches the keys if they may be used but are due for renewal, and no other caller
// fetches them. It makes no difference to the caller whether the fetch succeeds.
func (f *Fetcher) Renew(ctx context.Context, now clock.Moment) {
	if f.Good(now) && now.Mono >= f.nextTry.Load() && f.loading.TryAcquire(1) {
		f.refetch(ctx)
	}
}

// Find returns the key that has an ID and verifies at a moment. It fetches the keys if that
// key is not among them, or if they may not be used. The error is errs.ErrTokenKey if there
// is no such key; if the keys could not be fetched, the error is no rejection.
func (f *Fetcher) Find(ctx context.Context, id string, now clock.Moment) (*Key, error) {
	if id == "" {
		return nil, errs.ErrTokenKey
	}
	if r := f.ring.Load(); r.good(now) {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	// The keys have to be fetched, because this key is new, or because there are no keys
	// yet.
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
	// Anybody can name a key that does not exist. So the source is called at most once a
	// second for that, whatever it answers.
	asked := now.Age(f.fetched) < int64(refetchUnknown)
	never := !good && f.err == nil // no keys and no failure: the source was not asked yet, or long ago
	if !asked || never {
		was := f.fetched
		if f.fetchFor(ctx) {
			if !good {
				f.fetched, f.err = was, nil // the next caller may have more time
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

// errSlowSource is the error for other callers if a fetch ended because the time of its
// caller was over.
var errSlowSource = errors.New("the source gave no answer in time")

// refetch fetches the keys while those in memory may still be used. The caller must hold
// loading, and refetch releases it.
func (f *Fetcher) refetch(ctx context.Context) {
	defer f.loading.Release(1)
	if f.clock.Now().Mono < f.nextTry.Load() {
		return // another caller has fetched them meanwhile
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(fetchWait<<min(f.failed, 8), fetchWaitMax))
	defer cancel()
	f.fetch(ctx)
}

// errCallersTime is the cause with which a fetch ends at the deadline of its caller. A
// cause is needed because it is chance whether the timer of the fetch or that of the caller
// fires first.
var errCallersTime = errors.New("the caller's deadline")

// fetchFor is fetch within the caller's deadline, and reports whether that deadline ended
// it. The fetch goes on if the caller hangs up. Otherwise an attacker could keep new keys
// from everybody by hanging up.
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

// fetch fetches the keys, and notes the result. The caller must hold loading.
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
		f.gone() // the tokens of a key that is gone are valid no more
	}
	f.ring.Store(&fetchedRing{Ring: New(keys, 0), at: began})
}

// sameKey reports whether a is b, and retires when b does.
func sameKey(a, b Key) bool { return a.ID == b.ID && a.RetireAt == b.RetireAt }

// errNoKeys is the error of a fetch that returned no public key.
var errNoKeys = errors.New("the source has no public key")

// ask calls the source.
func (f *Fetcher) ask(ctx context.Context) ([]Key, error) {
	keys, err := f.source(ctx)
	if err != nil {
		return nil, errs.Unclassified(err)
	}
	if len(keys) == 0 {
		// The source may be an issuer whose keys are all secret, or may not be what it is
		// taken for. The known keys stay in use, because an empty answer is no reason to
		// refuse a token for good.
		return nil, errNoKeys
	}
	return keys, nil
}
