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
	Record record.ID // the ID of the record of the ring
	// Seal has the keys with which the ring in the store is encrypted. If it is nil, the
	// ring is in memory only, and the store is never asked.
	Seal     *SealKeys
	Protocol paseto.Protocol // of new keys
	// Lead is how long a new key is known before it seals. It must be at least twice
	// ReloadEvery.
	Lead time.Duration
	// MaxAge is how old the ring in memory may be if no feed tells of changes. A value
	// outside of 1 s to 30 s counts as the nearer of these two.
	MaxAge time.Duration
	// Live reports whether the store's feed tells of every change, as far as is known at
	// now.
	Live func(now clock.Moment) bool
	// Problem is told why the record of the ring cannot be used; a nil error says that it
	// can be used. Problem is not told that the store does not answer.
	Problem func(error)
}

// Keeper holds the ring of one issuer as it was last read from the store. It reads the ring
// again when the ring may have changed, and changes it. If the store has no ring, the first
// use makes one with one key. A Keeper is safe for concurrent use.
type Keeper struct {
	cfg    KeeperConfig
	ring   atomic.Pointer[Ring]
	turn   *semaphore.Weighted // taken while the ring is read or made
	readAt atomic.Int64        // monotonic: when the last read of the ring began
	// told counts how often the feed has told of a change of the ring. heard is the value
	// of told when the last read of the ring began. If they differ, the ring has to be read
	// again.
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

// ReloadEvery bounds how often tokens with unknown keys cause the ring to be read again,
// because anybody can name a key that does not exist. A key that does exist is known for
// KeeperConfig.Lead before it is used, usually through the feed. Lead is longer than
// ReloadEvery, so the last read has found such a key.
const ReloadEvery = 20 * time.Millisecond

// Stored reports whether the ring is in the store, and not in memory only.
func (k *Keeper) Stored() bool { return k.cfg.Seal != nil }

// load reads the ring. If there is none, it makes one with one key.
func (k *Keeper) load(ctx context.Context) (*Ring, error) {
	return k.since(ctx, k.cfg.Clock.Now().Mono, "")
}

// since returns the ring in memory if it was read after an instant (monotonic), or if it
// has the key id; otherwise since reads it. One caller reads at a time and the others wait.
// A caller that waited does not read again if it finds what it needs in the ring that was
// read meanwhile.
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

// read reads the ring, or makes it. The caller must hold turn.
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

// Check reads the ring from the store, but makes none if there is none. Its error says why
// the ring could not be read, or cannot be used.
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

// Changed notes that the feed has told of a change of the ring, or may have missed one, and
// reads the ring if it is in use. If the ring cannot be read, that concerns only tokens: it
// is read again when it is next needed, and everything else goes on.
func (k *Keeper) Changed(ctx context.Context) {
	if !k.Stored() {
		return
	}
	k.told.Add(1)
	if k.ring.Load() == nil {
		return
	}
	_, _ = k.load(ctx) // Problem was told of an error that does not pass by itself
}

// Current returns a ring with which a token can be sealed, or whose keys can be published.
// It returns the ring in memory if a live feed has told of no change since the ring was
// read, or if the ring is young enough. Otherwise it reads the ring. If another caller
// reads it already, or if the read fails, Current still returns the ring in memory, for
// Lead from when it was read: a new key that the ring lacks cannot be in use before that.
// now is the present moment, as Live takes it.
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

// Find returns the key that has an ID and verifies at a moment, or nil if there is none. A
// key that is not in the ring in memory is looked for in the store, because another process
// may have just made it. A key that is in the ring needs no newer ring: it verifies until
// its last token has expired, and what it has sealed stays valid even if others have put it
// out of use since.
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

// Rotate adds a key that seals from KeeperConfig.Lead after now on. The keys before it get
// an end: kept after the new key begins to seal. kept is called only if a key is added. If
// a key already waits to seal, Rotate returns that key, and made is false. It fails with
// errs.ErrInvalid if Max keys still verify.
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
	_, _ = k.load(ctx) // the ring is written; if it cannot be read now, it is read before the new key is used
	return nil
}
