package tokenring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/retry"
	"golang.org/x/sync/semaphore"
)

// KeeperConfig is what a Keeper works with.
type KeeperConfig struct {
	Store  recordstore.Store
	Clock  *clock.Clock
	Record record.ID // of the ring in the store
	// Seal is what the ring in the store is sealed with; nil: the ring is in memory only,
	// and the store is never asked.
	Seal     *SealKeys
	Protocol paseto.Protocol // of new keys
	// Lead is how long a new key is known before it seals; at least twice ReloadEvery.
	Lead time.Duration
	// MaxAge is how old the ring in memory may be where no feed tells of changes; what lies
	// outside of 1 s to 30 s counts as the nearest of the two.
	MaxAge time.Duration
	// Live reports whether the store's feed tells of every change, so far as is known at
	// a moment.
	Live func(now clock.Moment) bool
	// Problem is told why the record of the ring cannot be used, and with nil that it can
	// be. It is not told that the store does not answer.
	Problem func(error)
}

// Keeper holds the ring of one issuer as it was last read from the store, reads it again
// when it may have changed, and changes it. The first use makes a ring with one key where
// there is none. A Keeper is safe for concurrent use.
type Keeper struct {
	cfg    KeeperConfig
	ring   atomic.Pointer[Ring]
	turn   *semaphore.Weighted // taken while the ring is read or made
	readAt atomic.Int64        // monotonic: before it was last read
	// told is how often the feed has told of a change of the ring, and heard is told
	// from before the ring was last read: where they differ, it is to be read again.
	told, heard atomic.Uint64
}

// NewKeeper makes a Keeper that has read nothing yet.
func NewKeeper(cfg KeeperConfig) *Keeper {
	cfg.MaxAge = min(max(cfg.MaxAge, ageLeast), ageMost)
	return &Keeper{cfg: cfg, turn: semaphore.NewWeighted(1)}
}

// The bounds of KeeperConfig.MaxAge.
const (
	ageLeast = time.Second
	ageMost  = 30 * time.Second
)

// ReloadEvery bounds how often tokens with unknown keys make the ring be read
// again: anybody can name a key that does not exist. A key that does is known for
// KeeperConfig.Lead before it is used, by the feed as a rule; Lead is at least
// as long as this, so that the last reading has it.
const ReloadEvery = 20 * time.Millisecond

// Stored reports whether the ring is in the store, and not in memory only.
func (k *Keeper) Stored() bool { return k.cfg.Seal != nil }

// load reads the ring, or makes it with its first key.
func (k *Keeper) load(ctx context.Context) (*Ring, error) {
	return k.since(ctx, k.cfg.Clock.Now().Mono, "")
}

// since returns the ring as it was read at an instant (monotonic) or later, or any
// that has the key id; it is read unless it was. Whoever reads it is waited for: of many
// who come while it is read, none reads it again who finds in it what he wants.
func (k *Keeper) since(ctx context.Context, since int64, id string) (*Ring, error) {
	if err := k.turn.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: token keys: %w", err)
	}
	defer k.turn.Release(1)
	if r := k.ring.Load(); r != nil && (k.readAt.Load() > since || id != "" && r.ByID[id] != nil) {
		return r, nil
	}
	began, told := k.cfg.Clock.Now().Mono, k.told.Load()
	r, err := k.read(ctx)
	switch {
	case err == nil:
		k.readAt.Store(began)
		k.heard.Store(told)
		k.cfg.Problem(nil)
	case !errs.IsOutage(err) && ctx.Err() == nil:
		k.cfg.Problem(err)
	}
	return r, err
}

// read is for whoever has the turn.
func (k *Keeper) read(ctx context.Context) (*Ring, error) {
	if !k.Stored() {
		if r := k.ring.Load(); r != nil {
			return r, nil
		}
		first, err := Draw(k.cfg.Protocol, 0)
		if err != nil {
			return nil, err
		}
		r := New([]Key{first}, 0)
		k.ring.Store(r)
		return r, nil
	}
	var found *Ring
	err := retry.Do(ctx, func(bool) error {
		rec, err := k.get(ctx)
		switch {
		case err == nil:
			found, err = k.decode(&rec)
			return err
		case !errors.Is(err, backend.ErrNotFound):
			return err
		}
		first, err := Draw(k.cfg.Protocol, 0)
		if err != nil {
			return err
		}
		err = k.write(ctx, []Key{first}, backend.IfAbsent(), clock.Millis(k.cfg.Clock.Read()))
		if err != nil {
			return retry.Raced(err)
		}
		return retry.Again(errs.ErrReadBack)
	})
	if err != nil {
		return nil, err
	}
	k.ring.Store(found)
	return found, nil
}

func (k *Keeper) get(ctx context.Context) (backend.Record, error) {
	rec, err := k.cfg.Store.Get(ctx, k.cfg.Record)
	if err != nil {
		return backend.Record{}, errs.OfStore("fob: read token keys", err)
	}
	return rec, nil
}

func (k *Keeper) decode(rec *backend.Record) (*Ring, error) {
	r, err := k.cfg.Seal.Decode(rec)
	if err != nil {
		return nil, fmt.Errorf("fob: token keys: %w", err)
	}
	return r, nil
}

func (k *Keeper) write(ctx context.Context, keys []Key, cond backend.Cond, created int64) error {
	rec := backend.Record{ID: k.cfg.Record, Kind: record.Ring, Created: created}
	if err := k.cfg.Seal.Encode(&rec, keys); err != nil {
		return err
	}
	if _, err := k.cfg.Store.Replace(ctx, rec, cond); err != nil {
		return fmt.Errorf("fob: write token keys: %w", err)
	}
	return nil
}

// Check reads the ring from the store, and makes none where there is none. Its error says
// why the ring could not be read, or cannot be used.
func (k *Keeper) Check(ctx context.Context) error {
	if !k.Stored() {
		return nil
	}
	rec, err := k.get(ctx)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	if err == nil {
		_, err = k.decode(&rec)
	}
	return err
}

// Changed notes that the feed has told of a change of the ring, or may have missed one,
// and reads the ring if it is in use. That it cannot be read concerns tokens alone: it is
// read when it is next needed, and everything else goes on.
func (k *Keeper) Changed(ctx context.Context) {
	if !k.Stored() {
		return
	}
	k.told.Add(1)
	if k.ring.Load() == nil {
		return
	}
	_, _ = k.load(ctx) // what is wrong for good was told to Problem by now
}

// Current returns a ring by which a token can be sealed, or the keys be published:
// that in memory, if a feed that lives has told of no change since it was read, or if it
// is young enough. Else it is read. While somebody does, and where that fails, the one in
// memory does for as long as a new key that it does not have cannot be in use: Lead
// from when it was read. now is the present moment, as Live takes it.
func (k *Keeper) Current(ctx context.Context, now clock.Moment) (*Ring, error) {
	r := k.ring.Load()
	if r == nil {
		return k.since(ctx, clock.Never, "")
	}
	changed := k.told.Load() != k.heard.Load()
	if !k.Stored() || !changed && (k.cfg.Live(now) || now.Age(k.readAt.Load()) < int64(k.cfg.MaxAge)) {
		return r, nil
	}
	good := now.Age(k.readAt.Load()) < int64(k.cfg.Lead)
	if good {
		if !k.turn.TryAcquire(1) {
			return r, nil
		}
		k.turn.Release(1)
	}
	young := max(now.Mono-int64(k.cfg.MaxAge), now.Floor)
	if changed {
		young = now.Mono
	}
	read, err := k.since(ctx, young, "")
	if err != nil && good {
		return r, nil
	}
	return read, err
}

// Find returns the key of an ID that verifies at a moment, or nil if there is none. A key
// that is not known is looked for in the store: another process may have made it a moment
// ago. One that is known needs no newer ring: it verifies until its last token has
// expired, and whether others have put it out of use since does not change what it has
// sealed.
func (k *Keeper) Find(ctx context.Context, id string, now clock.Moment) (*Key, error) {
	r := k.ring.Load()
	if r == nil {
		var err error
		if r, err = k.since(ctx, clock.Never, ""); err != nil {
			return nil, err
		}
	}
	if key := r.Find(id, now.MS); key != nil || r.ByID[id] != nil || !k.Stored() {
		return key, nil
	}
	r, err := k.since(ctx, max(now.Mono-int64(ReloadEvery), now.Floor), id)
	if err != nil {
		return nil, err
	}
	return r.Find(id, now.MS), nil
}

// Rotate adds a key that seals from KeeperConfig.Lead after now, and gives those before it
// an end: kept after the new one begins to seal, which is asked for only then. A key that
// waits already is returned instead, and made is false. More than Max keys that still
// verify are ErrInvalid.
func (k *Keeper) Rotate(ctx context.Context, kept func(context.Context) time.Duration) (newest Key, made bool, err error) {
	err = retry.Do(ctx, func(bool) error {
		r, err := k.load(ctx)
		if err != nil {
			return err
		}
		now := clock.Millis(k.cfg.Clock.Read())
		if newest = r.Keys[len(r.Keys)-1]; newest.ActiveAt > now {
			return nil
		}
		next, err := Draw(k.cfg.Protocol, now+max(k.cfg.Lead.Milliseconds(), 1))
		if err != nil {
			return err
		}
		keys, err := r.with(next, now, kept(ctx))
		if err != nil {
			return err
		}
		if err := k.replace(ctx, r, keys); err != nil {
			return retry.Raced(err)
		}
		newest, made = next, true
		return nil
	})
	return newest, made, err
}

// replace writes keys over the ring old.
func (k *Keeper) replace(ctx context.Context, old *Ring, keys []Key) error {
	if !k.Stored() {
		if !k.ring.CompareAndSwap(old, New(keys, 0)) {
			return errs.ErrConflict
		}
		return nil
	}
	rec, err := k.get(ctx)
	if err != nil {
		return err
	}
	if rec.Version != old.Version {
		return errs.ErrConflict
	}
	if err := k.write(ctx, keys, backend.IfVersion(old.Version), rec.Created); err != nil {
		return err
	}
	_, _ = k.load(ctx) // it is written; whoever cannot read it now does so before it is used
	return nil
}
