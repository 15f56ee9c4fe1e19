package imported

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

// Import makes a key of another system valid here. k is the key that it becomes, without an ID
// and without what it is recognised by; after nil it is as it was written. known was checked
// by the caller. now is the time of the import.
//
// A key that was imported already, in whatever form as far as that can be told, is
// errs.ErrAlready. What an unfinished import left for another subject, or what somebody has
// revoked or disabled of it, is errs.ErrConflict, as is a key of which it cannot be told
// whether it is another one than that which has its locator. An import that failed or was
// cut off can be called again; until one has finished, the key is not found.
func (s *Store) Import(ctx context.Context, k *keystate.State, known Key, now time.Time) error {
	if err := s.Peppers.Vouch(ctx); err != nil {
		return err
	}
	var err error
	switch {
	case known.Digest != nil:
		err = s.Peppers.VouchImported(ctx)
	case known.Secret != "":
		err = s.Peppers.DoubtImported(ctx) // it is looked for by that digest too
	}
	if err != nil {
		return err
	}
	one := &importRun{store: s, key: k, known: func() Key { return known }, now: now}
	return retry.Do(ctx, func(unsure bool) error { return one.try(ctx, unsure) })
}

// importRun is one call of Import. Its sequence, each prefix of which is safe to
// stop after:
//
//  1. the alias names the key-to-be. It is pending: Find does not follow it. Every
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
type importRun struct {
	store *Store
	key   *keystate.State
	// known returns what is known of the key. fmt prints the fields of a struct without calling
	// their methods, and nobody looks into a function.
	known func() Key
	now   time.Time

	claimed  record.ID // the place that was claimed last, and as which version
	version  uint64
	waits    keystate.Waits
	left     int  // how often a key of another subject was found in its place
	finished bool // step 3 was tried
}

func (i *importRun) try(ctx context.Context, unsure bool) error {
	s, k := i.store, i.key
	found, err := i.find(ctx)
	if err != nil {
		if unsure && i.finished && errors.Is(err, errs.ErrAlready) && i.mine(ctx) {
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
	version, err := s.Replace(ctx, place.record(), place.cond)
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
	if k.Version, err = s.Replace(ctx, s.RecordOf(k), cond); err != nil {
		return retry.Raced(err)
	}
	for _, other := range found.later {
		other.target, other.pending = k.ID, false
		if _, err := s.Replace(ctx, other.record(), other.cond); err != nil {
			return retry.Raced(err)
		}
	}
	place.pending, i.finished = false, true
	return retry.Raced(i.finish(ctx, place.record(), version))
}

// finish is step 3. It is not Replace: what stands there after an unknown outcome may be
// what another call has finished with, and looks the same.
func (i *importRun) finish(ctx context.Context, rec backend.Record, claim uint64) error {
	s, cond := i.store, backend.IfVersion(claim)
	return retry.Do(ctx, func(unsure bool) error {
		if unsure {
			led, err := s.readAlias(ctx, rec.ID)
			switch {
			case err != nil:
				return err
			case led.rec.Version == claim: // surely not applied
			case led.pending:
				return errs.ErrTakenOver
			case !i.mine(ctx):
				return fmt.Errorf("%w: imported already", errs.ErrAlready)
			default:
				cond = led.cond
			}
		}
		_, err := s.Put(ctx, rec, cond)
		if err == nil || errors.Is(err, backend.ErrIndeterminate) {
			s.Forget(rec.ID)
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
func (i *importRun) putDigest() {
	switch f := i.known(); {
	case f.Secret != "":
		i.key.SetDigest(i.store.Peppers.Digest(Material(i.key.ID, f.Secret)))
	case f.Hash != "":
		i.key.ImportedHash = f.Hash
	default:
		i.key.ImportedHash = ownMark + hex.EncodeToString(f.Digest)
	}
}

// mine reports whether the key that was imported is as this call wrote it.
func (i *importRun) mine(ctx context.Context) bool {
	k, err := i.store.Read(ctx, i.key.ID)
	if err != nil || !k.Same(i.key) {
		return false
	}
	i.key.Version = k.Version
	return true
}

// placeOfKey gives the key its ID, and returns the condition under which it is
// written: the place of what an unfinished import left, if there is such a thing.
func (i *importRun) placeOfKey(ctx context.Context, place *alias) (backend.Cond, error) {
	k := i.key
	k.ID, k.Alias = place.target, place.rec.ID
	k.IssuedAt = clock.Millis(i.now)
	if place.rec.Version == 0 {
		return backend.IfAbsent(), nil
	}
	old, err := i.store.Read(ctx, k.ID)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		return backend.IfAbsent(), nil
	case err != nil:
		return backend.Cond{}, err
	case old.Status == keystate.Active && old.SubjectRef != k.SubjectRef && i.left < 3*keystate.MaxWaits:
		// For another subject it cannot be taken over. Its own call may still live: it has
		// the time to find that nobody else goes on, and to finish.
		i.left++
		return backend.Cond{}, retry.Again(errs.ErrTakenOver)
	case old.Status != keystate.Active || old.SubjectRef != k.SubjectRef:
		return backend.Cond{}, fmt.Errorf("%w: an import that did not finish left key %s", errs.ErrConflict, k.ID)
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
func (i *importRun) find(ctx context.Context) (*places, error) {
	found := &places{}
	for _, form := range i.store.formsOf(i.known()) {
		for n := range form.room() {
			ref := form.at(n)
			led, err := i.store.readAlias(ctx, ref)
			if errors.Is(err, errs.ErrNotFound) {
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
					return nil, fmt.Errorf("%w: %d other keys have this locator", errs.ErrConflict, form.room())
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
func (i *importRun) fresh(ref record.ID) *alias {
	return &alias{
		target: keytext.NewID(i.now), pending: true, print: i.printFor(ref), cond: backend.IfAbsent(),
		rec: backend.Record{ID: ref, Kind: record.Alias, Owner: i.key.Owner, Created: clock.Millis(i.now)},
	}
}

// unfinished returns the alias of the import to finish to which one that was found
// belongs, or errs.ErrAlready. An import in another form may have finished this alias for
// its own (places.later), and then have been cut off.
func (i *importRun) unfinished(ctx context.Context, led *alias) (*alias, error) {
	if led.pending {
		return led, nil
	}
	already := fmt.Errorf("%w: imported already", errs.ErrAlready)
	k, err := i.store.Read(ctx, led.target)
	if errors.Is(err, errs.ErrNotFound) || err == nil && k.Alias == led.rec.ID {
		return nil, already
	}
	if err != nil {
		return nil, err
	}
	first, err := i.store.readAlias(ctx, k.Alias)
	switch {
	case err != nil:
		return nil, err
	case first.pending && first.target == k.ID:
		return first, nil
	}
	return nil, already
}

// printFor returns the print of what is imported now, for an alias.
func (i *importRun) printFor(ref record.ID) string {
	for _, what := range []byte{printSum, printHash, printOwn} {
		if material := i.store.printable(i.known(), what); material != nil {
			made, _ := i.store.printUnder(i.store.Peppers.Active(), ref, what, material)
			return made
		}
	}
	return ""
}

// isOf reports whether the alias of a locator is of the key that is imported. Where
// that cannot be told it fails with errs.ErrConflict, unless the caller says that it is
// not.
func (i *importRun) isOf(ctx context.Context, led *alias) (bool, error) {
	s, known := i.store, i.known()
	if led.print != "" {
		what := led.print[0]
		pepper := led.print[2 : len(led.print)-printLen]
		if material := s.printable(known, what); material != nil {
			if own, ok := s.printUnder(pepper, led.rec.ID, what, material); ok && own == led.print {
				return true, nil
			} else if ok && what != printHash {
				return false, s.Peppers.Doubt(ctx, pepper)
			}
		}
	}
	k, err := s.Read(ctx, led.target)
	switch {
	case errors.Is(err, errs.ErrNotFound) && led.pending:
		return true, nil // nothing is there but the place
	case err != nil && !errors.Is(err, errs.ErrNotFound):
		return false, err
	case led.pending && led.print == "":
		return true, nil // made before there were prints
	case err == nil && known.Secret != "":
		return s.matches(ctx, k, known.Secret, s.ownDigest(known.Secret))
	case known.Another:
		return false, nil
	}
	return false, fmt.Errorf("%w: another key has this locator, or this one has it in another form", errs.ErrConflict)
}
