package fob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/health"
	"github.com/fobkit/fob/internal/legacyhash"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/records"
	"github.com/fobkit/fob/internal/retry"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/fobkit/fob/internal/usagelog"
	"golang.org/x/sync/semaphore"
)

// Manager issues, verifies, rotates, limits and revokes credentials over one
// store. It is the facade of the package: an application makes one and shares
// it. All methods are safe for concurrent use. A Manager borrows its store: the
// caller opens it before New and closes it after Close.
type Manager struct {
	cfg     Config
	store   backend.Store
	records records.Store
	clock   clock.Clock

	prefixes []acceptedPrefix
	limiter  *legacyhash.Limiter

	engine *engine.Engine[body]
	// keys and accessTokens are what is remembered of credentials that were found, and
	// subjects and parents what those answers are made from; of tokens nil without
	// Config.Tokens.
	keys, accessTokens *cache.Cache[answer]
	subjects           *engine.Part[subjectState]
	parents            *engine.Part[parentState]
	blind              bool                   // notes nothing that is read; only for the test that sees what that is for
	rehashed           *cache.Cache[struct{}] // the keys that were lately tried to be rehashed

	marks     *marks.Ledger
	fleet     *fleet.Fleet
	recent    recentRevocations
	health    health.Feed
	skew      clock.Skew
	rotations rotationWalk
	usage     *usagelog.Log
	tokens    *tokenring.Keeper // nil without Config.Tokens
	peppers   *pepper.Keeper
	problems  health.Problems

	running context.Context // ends with Close
	stop    context.CancelFunc
	closed  atomic.Bool // set under life
	done    sync.WaitGroup

	life sync.Mutex // guards that nothing is added to done after closed
}

var _ Verifier = (*Manager)(nil)

type acceptedPrefix struct {
	text  string
	other bool // of another environment
}

// Format writes that it is a Manager and of which prefix, for every verb: what is in
// it are peppers, token keys and what was verified.
func (m *Manager) Format(f fmt.State, _ rune) {
	if m == nil {
		_, _ = io.WriteString(f, "<nil>")
		return
	}
	_, _ = fmt.Fprintf(f, "manager of %q", m.cfg.Prefix)
}

// String returns what Format writes: some printers ask for this alone.
func (m *Manager) String() string { return fmt.Sprintf("%v", m) }

// upkeepTimeout bounds one background call of the store, and so how long Close
// can wait for one that hangs.
const upkeepTimeout = 10 * time.Second

// New makes a Manager over store. It asks nothing of the store, so it is as quick on
// a million records as on none, and works while the store is down. It starts two
// goroutines at most (upkeep, and the store's feed, which reads what was revoked), which
// Close ends; a panic of the store there is an event, and ends nothing. A Config
// that cannot work is ErrInvalid, with every problem named, as is a nil store.
func New(store backend.Store, cfg Config) (*Manager, error) {
	if missingStore(store) {
		return nil, fmt.Errorf("%w: no store", ErrInvalid)
	}
	cfg, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg:   cfg,
		usage: usagelog.New(cfg.CacheEntries),
	}
	m.clock.Start(cfg.Clock, clockStride)
	m.running, m.stop = context.WithCancel(context.Background())
	if err := m.makeMemory(); err != nil {
		return nil, err
	}
	m.rotations.turn = semaphore.NewWeighted(1)
	m.store = &seenStore{store, m}
	m.records = records.Store{Store: m.store, Forget: m.forget}
	m.peppers = m.newPeppers()
	m.fleet = m.newFleet()
	feed, follows := backend.As[backend.Watcher](store)
	lister, lists := backend.As[backend.Lister](store)
	m.marks = &marks.Ledger{Set: marks.New(follows && lists, m.forget), Store: m.records, Clock: &m.clock}
	m.prefixes = append(m.prefixes, acceptedPrefix{text: cfg.Prefix})
	for _, p := range cfg.Prefixes {
		m.prefixes = append(m.prefixes, acceptedPrefix{text: p})
	}
	for _, p := range cfg.RetiredPrefixes {
		m.prefixes = append(m.prefixes, acceptedPrefix{text: p})
	}
	for _, p := range cfg.OtherPrefixes {
		m.prefixes = append(m.prefixes, acceptedPrefix{text: p, other: true})
	}
	if cfg.Foreign != nil {
		m.limiter = legacyhash.NewLimiter(cfg.Foreign.SlowChecks)
	}
	if cfg.Tokens != nil {
		if m.tokens, err = m.newTokens(); err != nil {
			return nil, err
		}
	}
	m.background("upkeep", m.upkeep)
	if m.marks.Follows {
		m.background("follow the feed", func(ctx context.Context) { m.followFeed(ctx, feed, lister) })
	}
	return m, nil
}

// Close stops the Manager's upkeep, waits for it, and writes the usage not yet
// written: in 10 s at most, over a store whose calls end with their context. Every call after it fails with ErrClosed; Close itself may be called
// again. It does not close the store. Its error says that usage was lost.
func (m *Manager) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout)
	defer cancel()
	m.life.Lock()
	first := m.closed.CompareAndSwap(false, true)
	m.life.Unlock()
	m.stop()
	m.done.Wait()
	if !first {
		return nil
	}
	return m.flushUsage(ctx)
}

// upkeep flushes usage and sweeps until ctx ends.
func (m *Manager) upkeep(ctx context.Context) {
	every := min(m.cfg.UsageInterval, fleet.DefaultUsageInterval) // until the fleet knows of more
	flush := time.NewTicker(every)
	defer flush.Stop()
	var silence, join, sweep <-chan time.Time
	var more <-chan time.Time // when the sweep goes on that has not come to its end
	if m.marks.Follows {
		t := time.NewTicker(max(m.cfg.MaxStaleness/2, retry.BackoffMax/2))
		defer t.Stop()
		silence = t.C
	}
	if m.cfg.patience() > fleet.DefaultStaleness {
		if !m.marks.Follows { // else followFeed does, before the feed begins
			m.joinFleet(ctx)
		}
		t := time.NewTicker(retry.BackoffMax)
		defer t.Stop()
		join = t.C
	}
	if m.cfg.SweepInterval > 0 {
		t := time.NewTicker(m.cfg.SweepInterval)
		defer t.Stop()
		sweep = t.C
	}
	var sweeping sweepParts
	for {
		var task func(context.Context) error
		within, sweeps := ctx, false
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			// Cut off by Close, it might be lost: Close waits for it.
			within = context.WithoutCancel(ctx)
			task = func(ctx context.Context) error {
				next, err := m.writeUsage(ctx)
				if next != every {
					every = next
					flush.Reset(every)
				}
				return err
			}
		case <-silence:
			m.noticeSilence()
			continue
		case <-join:
			m.joinFleet(ctx)
			continue
		case <-sweep:
			sweeping, sweeps = allSweeps, true
		case <-more:
			sweeps = true
		}
		if sweeps {
			more = nil
			task = func(ctx context.Context) (err error) {
				_, sweeping, err = m.sweep(ctx, sweeping)
				return err
			}
		}
		began := m.clock.Now().Mono
		bounded, cancel := context.WithTimeout(within, upkeepTimeout)
		err := guard.Run("", func() error { return task(bounded) })
		cancel()
		if err != nil && ctx.Err() == nil {
			m.report(Event{Type: EventUpkeepFailed, Err: err})
		}
		if sweeps && err == nil && sweeping != (sweepParts{}) {
			// The others who use the store, and the writing of usage, have at least as much
			// of the time.
			more = time.After(max(sweepPause, time.Duration(m.clock.Now().Mono-began)))
		}
	}
}

func (m *Manager) now() time.Time { return m.clock.Read() }

func (m *Manager) observe(e Event) {
	if m.cfg.Observer == nil {
		return
	}
	if e.At.IsZero() {
		e.At = m.now().UTC()
	}
	m.cfg.Observer.Observe(e)
}

// observeOutcome reports a change that was made, or that may have been.
func (m *Manager) observeOutcome(e Event, err error) {
	if err == nil || errors.Is(err, ErrIndeterminate) {
		e.Err = err
		m.observe(e)
	}
}

// forget makes every remembered answer that depends on these records be found anew.
func (m *Manager) forget(records ...backend.ID) { m.engine.Forget(records...) }

// readKey reads a key from the store, not the cache.
func (m *Manager) readKey(ctx context.Context, id ID) (*Key, error) {
	asOf := clock.Millis(m.now())
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	k, err := decodeKey(&rec)
	if err == nil {
		k.asOf.Store(asOf)
	}
	return k, err
}

// editKey changes a key by compare-and-set: it reads, calls edit, writes, and
// begins again if another change came between. edit reports false when there is
// nothing to change; unsure tells it that an earlier try may have been applied.
// When editKey returns nil, no Verify that starts later sees
// the old state.
func (m *Manager) editKey(ctx context.Context, id ID, edit func(k *Key, unsure bool) (bool, error)) (edited *Key, err error) {
	if m.closed.Load() {
		return nil, ErrClosed
	}
	err = retry.Do(ctx, func(unsure bool) error {
		k, err := m.readKey(ctx, id)
		if err != nil {
			return err
		}
		changed, err := edit(k, unsure)
		if err != nil {
			// What this refusal tells of the key must not be news to a Verify after it.
			m.forget(backend.ID(id))
			return err
		}
		// After an unknown outcome the change is written again even if it can be
		// read: what can be read need not be durable.
		if !changed && !unsure {
			// Somebody else may have made it so, and the feed not have told yet.
			m.forget(backend.ID(id))
			edited = k
			return nil
		}
		rec := encodeKey(k, m.purgeAt(k))
		version, err := m.store.Put(ctx, rec, backend.IfVersion(k.version))
		switch {
		case err == nil:
			m.forget(rec.ID)
			k.version, edited = version, k
			return nil
		case errors.Is(err, backend.ErrIndeterminate):
			m.forget(rec.ID) // it may have been applied
			return retry.Again(errs.OfStore("write", err))
		}
		return retry.Raced(errs.OfStore("write", err))
	})
	return edited, err
}

// purgeAt is when the record of k may be forgotten; zero is never. A revoked key is
// accepted by nobody, whatever the clocks; one that expires may still be, by a clock that
// is behind.
func (m *Manager) purgeAt(k *Key) int64 {
	end := k.endsAt()
	switch {
	case k.status == StatusRevoked && (end == 0 || k.revokedAt < end):
		return max(k.revokedAt+m.cfg.Retention.Milliseconds(), k.keptUntil)
	case end == 0:
		return 0
	}
	return max(m.retained(end), k.keptUntil)
}

// retained is until when the record of something is kept that ends by the clock.
func (m *Manager) retained(end int64) int64 {
	return end + max(m.cfg.Retention, purgeMargin).Milliseconds()
}
