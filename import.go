package fob

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// ImportKey makes a key of another system valid here: its text stays the same,
// everything else is as if it had been issued here. Prefix and IdempotencyKey
// of spec must be empty.
//
// A key that was imported already is ErrAlready, in another form too as far as
// that can be told (of a Hash without Locator nobody knows the locator), and for
// good: also when it was revoked or has expired, and its record was purged. So of
// processes that import one key at the same time, one gets nil and the others
// ErrAlready once it is done. An import that failed or was cut off can be called
// again; until one has finished, the key is not accepted. What an unfinished one left
// for another subject, or what somebody has revoked or disabled of it, is ErrConflict.
//
// Up to eight keys can have one Locator. Another key than those that have it is
// imported beside them; where it cannot be told whether it is another one, that is
// ErrConflict (see ForeignKey.Another).
func (m *Manager) ImportKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*Key, error) {
	k, err := m.importKey(ctx, spec, foreign)
	if err != nil {
		return nil, fmt.Errorf("fob: import key: %w", err)
	}
	m.observe(Event{Type: EventImported, ID: ID(k.ID), Subject: k.Subject()})
	return keyOf(k, k.IssuedAt), nil
}

func (m *Manager) importKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*keystate.State, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	if m.cfg.Foreign == nil {
		return nil, fmt.Errorf("%w: Config.Foreign is not set", ErrInvalid)
	}
	if spec.Prefix != "" || spec.IdempotencyKey != "" {
		return nil, fmt.Errorf("%w: Prefix and IdempotencyKey are for keys issued here", ErrInvalid)
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return nil, err
	}
	k.Prefix, k.Imported = "", true
	if err := m.checkForeign(foreign); err != nil {
		return nil, err
	}
	if k.Epoch, err = m.marks.ReadEpoch(ctx, k.SubjectRef); err != nil {
		return nil, errs.OfStore("read", err)
	}
	if err := m.vouchPepper(ctx); err != nil {
		return nil, err
	}
	if c, ok := m.foreignDigest(); ok && (foreign.Digest != nil || foreign.Secret != "") {
		if foreign.Digest != nil {
			err = m.vouch(ctx, c)
		} else {
			err = m.doubt(ctx, c, false) // it is looked for by that digest too
		}
		if err != nil {
			return nil, err
		}
	}
	one := &importing{m: m, key: k, foreign: foreign, now: now}
	if err := retry.Do(ctx, func(unsure bool) error { return one.try(ctx, unsure) }); err != nil {
		return nil, err
	}
	return k, nil
}

// importing is one call of ImportKey. Its sequence, each prefix of which is safe to
// stop after:
//
//  1. the alias names the key-to-be. It is pending: Verify does not follow it. Every
//     call writes it, over a pending one too, and so has a version of it that nobody
//     else has: it claims the place.
//  2. the key is written, over the version that was read before the claim.
//  3. the alias is no longer pending, if its version is still the one of the claim.
//     From now on the key was accepted, perhaps; so if it is ever gone, it was purged,
//     and is not made anew.
//
// A call that gets through step 3 knows that the key is as it wrote it: who could
// write over it has claimed later, and then step 3 fails. Of several at once the one
// that claims last comes through, for the others do not claim again but wait: if they
// did, they could go on pushing each other out for ever. Only one that waits for a
// process which seems to be dead claims anew.
type importing struct {
	m       *Manager
	key     *keystate.State
	foreign ForeignKey
	now     time.Time

	claimed  record.ID // the place that was claimed last, and as which version
	version  uint64
	waits    keystate.Waits
	left     int  // how often a key of another subject was found in its place
	finished bool // step 3 was tried
}

func (i *importing) try(ctx context.Context, unsure bool) error {
	m, k := i.m, i.key
	found, err := i.find(ctx)
	if err != nil {
		if unsure && i.finished && errors.Is(err, ErrAlready) && i.mine(ctx) {
			return nil
		}
		return err
	}
	place := found.place
	if place.rec.Version > 0 && place.rec.ID == i.claimed && place.rec.Version != i.version {
		if err := i.waits.Wait(); err != nil {
			return err
		}
	}
	cond, err := i.placeOfKey(ctx, place)
	if err != nil {
		return err
	}
	version, err := m.records.Replace(ctx, place.record(), place.cond)
	if err != nil {
		return retry.Raced(err)
	}
	i.claimed, i.version = place.rec.ID, version
	// Once more, for one that imports the same key in another form may have come since:
	// of two that both do this at least one sees the other.
	if found, err = i.find(ctx); err != nil {
		return err
	}
	if found.place.rec.ID != i.claimed || found.place.rec.Version != version {
		return retry.Again(errs.ErrTakenOver)
	}
	i.putDigest()
	if k.Version, err = m.records.Replace(ctx, m.keystore.RecordOf(k), cond); err != nil {
		return retry.Raced(err)
	}
	for _, other := range found.later {
		other.target, other.pending = k.ID, false
		if _, err := m.records.Replace(ctx, other.record(), other.cond); err != nil {
			return retry.Raced(err)
		}
	}
	place.pending, i.finished = false, true
	return retry.Raced(i.finish(ctx, place.record(), version))
}

// finish is step 3. It is not replace: what stands there after an unknown outcome may be
// what another call has finished with, and looks the same.
func (i *importing) finish(ctx context.Context, rec backend.Record, claim uint64) error {
	m, cond := i.m, backend.IfVersion(claim)
	return retry.Do(ctx, func(unsure bool) error {
		if unsure {
			led, err := m.readAlias(ctx, rec.ID)
			switch {
			case err != nil:
				return err
			case led.rec.Version == claim: // surely not applied
			case led.pending:
				return errs.ErrTakenOver
			case !i.mine(ctx):
				return fmt.Errorf("%w: imported already", ErrAlready)
			default:
				cond = led.cond
			}
		}
		_, err := m.store.Put(ctx, rec, cond)
		if err == nil || errors.Is(err, backend.ErrIndeterminate) {
			m.forget(rec.ID)
		}
		if errors.Is(err, backend.ErrIndeterminate) {
			return retry.Again(errs.OfStore("write", err))
		}
		if err != nil {
			return errs.OfStore("write", err)
		}
		return nil
	})
}

// putDigest stores in the key what it is recognised by.
func (i *importing) putDigest() {
	switch f := &i.foreign; {
	case f.Secret != "":
		i.m.digest(i.key, foreignSecret(i.key.ID, f.Secret))
	case f.Hash != "":
		i.key.ImportedHash = f.Hash
	default:
		i.key.ImportedHash = ownDigest + hex.EncodeToString(f.Digest)
	}
}

// mine reports whether the key that was imported is as this call wrote it.
func (i *importing) mine(ctx context.Context) bool {
	k, err := i.m.keystore.Read(ctx, i.key.ID)
	if err != nil || !k.Same(i.key) {
		return false
	}
	i.key.Version = k.Version
	return true
}

// placeOfKey gives the key its ID, and returns the condition under which it is
// written: the place of what an unfinished import left, if there is such a thing.
func (i *importing) placeOfKey(ctx context.Context, place *alias) (backend.Cond, error) {
	k := i.key
	k.ID, k.Alias = place.target, place.rec.ID
	k.IssuedAt = clock.Millis(i.now)
	if place.rec.Version == 0 {
		return backend.IfAbsent(), nil
	}
	old, err := i.m.keystore.Read(ctx, k.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return backend.IfAbsent(), nil
	case err != nil:
		return backend.Cond{}, err
	case old.Status == keystate.Active && old.SubjectRef != k.SubjectRef && i.left < 3*keystate.MaxWaits:
		// For another subject it cannot be taken over. Its own call may still live: it has
		// the time to find that nobody else goes on, and to finish.
		i.left++
		return backend.Cond{}, retry.Again(errs.ErrTakenOver)
	case old.Status != keystate.Active || old.SubjectRef != k.SubjectRef:
		return backend.Cond{}, fmt.Errorf("%w: an import that did not finish left key %s", ErrConflict, k.ID)
	}
	k.IssuedAt = old.IssuedAt // immutable
	return backend.IfVersion(old.Version), nil
}

// places is where a key may be imported: the place to write, and others that an
// unfinished import of the same key in another form has begun with.
type places struct {
	place *alias
	later []*alias
}

// find looks where the key is to be imported. There is one order of all forms of a
// key, and of several unfinished imports the one that comes first in it goes on, so
// that two which know of each other do not both give way.
func (i *importing) find(ctx context.Context) (*places, error) {
	found := &places{}
	for _, form := range i.m.formsOf(i.foreign) {
		for n := range form.room() {
			ref := form.at(n)
			led, err := i.m.readAlias(ctx, ref)
			if errors.Is(err, ErrNotFound) {
				if form.wanted && found.place == nil {
					found.place = i.fresh(ref)
				}
				break
			}
			if err != nil {
				return nil, err
			}
			same := true
			if form.locator != "" {
				if same, err = i.isOf(ctx, led); err != nil {
					return nil, err
				}
			}
			if !same {
				if form.wanted && n == form.room()-1 {
					return nil, fmt.Errorf("%w: %d other keys have this locator", ErrConflict, form.room())
				}
				continue
			}
			if led, err = i.unfinished(ctx, led); err != nil {
				return nil, err
			}
			switch {
			case found.place == nil:
				found.place = led
			case found.place.rec.ID != led.rec.ID:
				found.later = append(found.later, led)
			}
			break
		}
	}
	if found.place.rec.Version > 0 {
		found.place.print = i.printFor(found.place.rec.ID)
	}
	return found, nil
}

// fresh is the alias of a key that nobody has begun to import.
func (i *importing) fresh(ref record.ID) *alias {
	return &alias{
		target: keytext.NewID(i.now), pending: true, print: i.printFor(ref), cond: backend.IfAbsent(),
		rec: backend.Record{ID: ref, Kind: record.Alias, Owner: i.key.Owner, Created: clock.Millis(i.now)},
	}
}

// unfinished returns the alias of the import to finish to which one that was found
// belongs, or ErrAlready. An import in another form may have finished this alias for
// its own (places.later), and then have been cut off.
func (i *importing) unfinished(ctx context.Context, led *alias) (*alias, error) {
	if led.pending {
		return led, nil
	}
	already := fmt.Errorf("%w: imported already", ErrAlready)
	k, err := i.m.keystore.Read(ctx, led.target)
	if errors.Is(err, ErrNotFound) || err == nil && k.Alias == led.rec.ID {
		return nil, already
	}
	if err != nil {
		return nil, err
	}
	first, err := i.m.readAlias(ctx, k.Alias)
	switch {
	case err != nil:
		return nil, err
	case first.pending && first.target == k.ID:
		return first, nil
	}
	return nil, already
}
