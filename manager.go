package fob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/health"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/lifecycle"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/rotation"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/fobkit/fob/internal/usagelog"
)

// Manager issues, verifies, rotates, limits and revokes credentials over one store. It is
// the facade of the package: an application makes one with [New] and shares it. All
// methods are safe for concurrent use. A Manager borrows its store: the caller opens the
// store before New and closes it after [Manager.Close].
type Manager struct {
	cfg      Config
	store    backend.Store
	records  recordstore.Store
	keystore keystate.Store
	clock    clock.Clock

	prefixes []acceptedPrefix
	imported *imported.Store // nil without Config.Imported

	engine *engine.Engine[body]
	// keys and accessTokens cache the answers about credentials that were found; holders
	// and parents cache what those answers are made from. accessTokens and parents are nil
	// without Config.Tokens.
	keys, accessTokens *cache.Cache[answer]
	holders            *engine.Part[holder]
	parents            *engine.Part[parentState]
	blind              bool                   // turns saw off, in the test that shows what saw is for
	rehashed           *cache.Cache[struct{}] // the keys whose rehash was tried lately

	marks     *marks.Ledger
	fleet     *fleet.Fleet
	recent    recentChanges
	health    health.Feed
	skew      clock.Skew
	rotator   *rotation.Rotator
	rotations *rotation.Sweeper
	usage     *usagelog.Log
	tokens    *tokenring.Keeper // nil without Config.Tokens
	peppers   *pepper.Keeper
	problems  health.Problems
	events    health.Events

	life lifecycle.Life
}

var _ Verifier = (*Manager)(nil)

type acceptedPrefix struct {
	text  string
	other bool // of another environment
}

// Format writes only that m is a Manager and its prefix, for every verb, because its
// fields hold peppers, token keys and verified credentials.
func (m *Manager) Format(f fmt.State, _ rune) {
	if m == nil {
		_, _ = io.WriteString(f, "<nil>")
		return
	}
	_, _ = fmt.Fprintf(f, "manager of %q", m.cfg.Prefix)
}

// String returns what Format writes, for printers that call String only.
func (m *Manager) String() string { return fmt.Sprintf("%v", m) }

// New makes a Manager over store. It does not call the store, so it is as quick for a
// million records as for none, and works while the store is down. It starts at most four
// goroutines: one for upkeep, and three that follow the store's feed and read what was
// revoked. [Manager.Close] ends them. If the store panics in one of them, that is an
// event, and the goroutine goes on. A Config that cannot work is ErrInvalid, with every
// problem named; so is a nil store.
func New(store backend.Store, cfg Config) (*Manager, error) {
	if guard.MissingStore(store) {
		return nil, fmt.Errorf("%w: no store", ErrInvalid)
	}
	cfg, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, usage: usagelog.New(cfg.CacheEntries)}
	if cfg.Observer != nil {
		m.usage.Watch(idleAfter)
	}
	m.clock.Start(cfg.Clock, clockStride)
	m.life.Start()
	if err := m.makeMemory(); err != nil {
		return nil, err
	}
	m.store = &recordstore.Seen{Store: store, Saw: m.saw, Missing: func(id backend.ID) { m.saw(backend.Record{ID: id}) }}
	m.records = recordstore.Store{Store: m.store, Forget: m.forget}
	m.keystore = keystate.Store{Store: m.records, Retention: cfg.Retention.Milliseconds(), Margin: clock.PurgeMargin.Milliseconds(), Closed: m.life.Closed}
	m.peppers = m.newPeppers()
	m.fleet = m.newFleet()
	feed, follows := backend.As[backend.Watcher](store)
	lister, lists := backend.As[backend.Lister](store)
	m.marks = &marks.Ledger{Set: marks.New(follows && lists, m.forget), Store: m.records, Clock: &m.clock, Problem: m.recordProblem}
	m.rotator, m.rotations = m.newRotator(), m.newRotationSweeper()
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
	if cfg.Imported != nil {
		m.imported = &imported.Store{
			Store: m.keystore, Peppers: m.peppers, Locate: cfg.Imported.Locate, Digest: cfg.Imported.Digest,
			Text: m.checkImportedText, Limiter: importedhash.NewLimiter(cfg.Imported.SlowChecks),
		}
	}
	if cfg.Tokens != nil {
		if m.tokens, err = m.newTokens(); err != nil {
			return nil, err
		}
	}
	m.background("upkeep", m.upkeep)
	if m.marks.Follows {
		m.background("follow the feed", func(ctx context.Context) { m.followFeed(ctx, feed) })
		m.background("read what was revoked", func(ctx context.Context) { m.fillMarks(ctx, lister) })
		m.background("read what the feed names", m.settleMarks)
	}
	return m, nil
}

// rehashedEntries bounds the number of keys in Manager.rehashed.
const rehashedEntries = 1024

// detachedLoads bounds how many loads from the store go on after their callers have left.
const detachedLoads = 64

// makeMemory makes the caches.
func (m *Manager) makeMemory() (err error) {
	m.engine, err = engine.New[body](engine.Config{
		MaxStaleness: m.cfg.MaxStaleness, StaleIfError: m.cfg.StaleIfError, Expected: fleet.DefaultStaleness,
		Entries: m.cfg.CacheEntries, Bytes: m.cfg.CacheBytes,
		Clock: &m.clock, Running: m.life.Context(), Hold: m.life.Limit(detachedLoads).Hold,
		Failed: func(err error) { m.report(Event{Type: EventUpkeepFailed, Err: err}) },
	})
	if err != nil {
		return err
	}
	var errs [5]error
	m.holders, errs[0] = engine.AddPart[holder](m.engine, nil)
	m.keys, errs[1] = m.engine.AddMemory(sizeOfAnswer, true)
	m.rehashed, errs[2] = cache.New(cache.Config[struct{}]{Entries: min(m.cfg.CacheEntries, rehashedEntries)})
	if m.cfg.Tokens != nil {
		m.parents, errs[3] = engine.AddPart(m.engine, func(p *parentState) int { return p.key.size() })
		m.accessTokens, errs[4] = m.engine.AddMemory(sizeOfAnswer, false)
	}
	return errors.Join(errs[:]...)
}

// Close stops the Manager's upkeep, waits for it, and writes the usage that is not yet
// written. It takes at most 10 s if the calls of the store end with their context. Every
// call after it fails with ErrClosed; Close itself may be called again. It does not close
// the store. An error of Close means that usage was lost.
func (m *Manager) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout)
	defer cancel()
	if first := m.life.Close(); !first {
		return nil
	}
	return m.flushUsage(ctx)
}

func (m *Manager) now() time.Time { return m.clock.Read() }

// background runs a loop of the Manager's own until Close, which waits for it. A loop
// that panics begins again.
func (m *Manager) background(name string, loop func(context.Context)) {
	m.life.Loop(loop, func(err error) {
		m.report(Event{Type: EventUpkeepFailed, Err: fmt.Errorf("fob: %s: %w", name, err)})
	})
}

// forget makes the Manager load every cached answer anew that depends on these records.
func (m *Manager) forget(records ...backend.ID) { m.engine.Forget(records...) }

// saw notes the version of a record that was read from the store, 0 if there is none: see
// [engine.Engine.Saw]. If the record is a mark, saw also takes over its values, which
// only rise.
func (m *Manager) saw(rec backend.Record) {
	if m.blind {
		return
	}
	if marks.Is(rec.ID) && m.marks.Follows && rec.Version > 0 {
		if to, err := marks.Decode(&rec); err == nil {
			m.marks.Raise(rec.ID, to)
		}
	}
	m.engine.Saw(rec.ID, rec.Version)
}
