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

// Import makes a key of another system valid here. k is the key to write, without an ID and
// without a digest; if Import returns nil, k is as it was written. Check has
// returned known. now is the time of the import.
//
// The error is errs.ErrAlready if the key was imported already, in any form, as far as that
// can be found out. It is errs.ErrConflict if an unfinished import left the key for another
// subject, if somebody has revoked or disabled what it left, or if it cannot be found out
// whether the key differs from one with the same locator. An import that failed or was cut
// off can be called again. The key is not found until an import has finished.
func (s *Store) Import(ctx context.Context, k *keystate.State, known Key, now time.Time) error {
	if err := s.Peppers.Vouch(ctx); err != nil {
		return err
	}
	var err error
	switch {
	case known.Digest != nil:
		err = s.Peppers.VouchImported(ctx)
	case known.Secret != "":
		err = s.Peppers.DoubtImported(ctx) // an earlier import is looked for by that digest too
	}
	if err != nil {
		return err
	}
	one := &importRun{store: s, key: k, known: func() Key { return known }, now: now}
	return retry.Do(ctx, func(unsure bool) error { return one.try(ctx, unsure) })
}

// importRun is one call of Import. It has three steps, and it is safe to stop after each:
//
// 1. The alias is written with the ID of the key-to-be. It is pending: Find does not follow
// it.
//
//	Every call writes the alias, also over a pending one, and so gets a version of the alias
//	that no other call has. This is its claim.
//
// 2. The key is written, over the version that was read before the claim. 3. The alias is
// written as no longer pending, if its version is still that of the claim. From
//
//	now on the key may have been accepted. So if its record is ever missing, it was purged, and
//	must not be made again.
//
// A call that gets through step 3 knows that the key is as it wrote it: a call that could
// overwrite the key has claimed later, and then step 3 fails. Of several calls at once the
// one that claims last succeeds. The others do not claim again but wait, because otherwise
// they could go on taking the claim from each other for ever. A call claims again only
// after it has waited so long that the other process seems to have crashed.
type importRun struct {
	store *Store
	key   *keystate.State
	// known returns what is known of the key. It is a function because fmt prints the
	// fields of a struct without calling their methods, but prints nothing from inside a
	// function.
	known func() Key
	now   time.Time

	claimed  record.ID // the alias that was claimed last; version is that of the claim
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
	// The aliases are looked up once more, because another call may have begun to import
	// the same key in another form. If two calls both do this, at least one of them sees
	// the other.
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

// finish is step 3. It does not use Replace, because after an unknown outcome the record in
// the store may be that with which another call has finished, and the two look the same.
func (i *importRun) finish(ctx context.Context, rec backend.Record, claim uint64) error {
	s, cond := i.store, backend.IfVersion(claim)
	return retry.Do(ctx, func(unsure bool) error {
		if unsure {
			led, err := s.readAlias(ctx, rec.ID)
			switch {
			case err != nil:
				return err
			case led.rec.Version == claim: // the write was surely not applied
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

// putDigest sets the digest or the hash by which the key is recognised.
func (i *importRun) putDigest() {
	switch f := i.known(); {
	case f.Secret != "":
		i.key.SetDigest(i.store.Peppers.Digest(Material(i.key.ID, f.Secret)))
	case f.Hash != "":
		i.key.ImportedHash = f.keptHash()
	default:
		i.key.ImportedHash = ownMark + hex.EncodeToString(f.Digest)
	}
}

// mine reports whether the key in the store is as this call wrote it.
func (i *importRun) mine(ctx context.Context) bool {
	k, err := i.store.Read(ctx, i.key.ID)
	if err != nil || !k.Same(i.key) {
		return false
	}
	i.key.Version = k.Version
	return true
}

// placeOfKey sets the ID of the key, and returns the condition under which the key is
// written. If an unfinished import has left a key, the new one takes its place.
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
		// The key was left by an import for another subject, so this call cannot take it
		// over. The other call may still run, so it gets the time to find that no other
		// call goes on, and to finish.
		i.left++
		return backend.Cond{}, retry.Again(errs.ErrTakenOver)
	case old.Status != keystate.Active || old.SubjectRef != k.SubjectRef:
		return backend.Cond{}, fmt.Errorf("%w: an import that did not finish left key %s", errs.ErrConflict, k.ID)
	}
	k.IssuedAt = old.IssuedAt // must not change
	return backend.IfVersion(old.Version), nil
}

// places are the aliases of a key: the one to write, and those with which an unfinished
// import of the same key in another form has begun.
type places struct {
	place *alias
	later []*alias
}

// find looks for the alias under which the key is to be imported. All calls use the same
// order of the forms of a key, and of several unfinished imports the one whose form comes
// first goes on. So two imports that know of each other do not both give way.
func (i *importRun) find(ctx context.Context) (*places, error) {
	found := &places{}
	for _, form := range i.store.formsOf(i.known()) {
		for n := range form.room() {
			ref := form.at(n)
			led, err := i.store.readAlias(ctx, ref)
			if errors.Is(err, errs.ErrNotFound) {
				if form.wanted && found.place == nil {
					found.place = i.newAlias(ref)
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

// newAlias returns the alias of a key that nobody has begun to import.
func (i *importRun) newAlias(ref record.ID) *alias {
	return &alias{
		target: keytext.NewID(i.now), pending: true, print: i.printFor(ref), cond: backend.IfAbsent(),
		rec: backend.Record{ID: ref, Kind: record.Alias, Owner: i.key.Owner, Created: clock.Millis(i.now)},
	}
}

// unfinished returns the alias of the unfinished import to which an alias belongs, or
// errs.ErrAlready if that import has finished. An import in another form may have written
// this alias as finished, as one of its places.later, and then have been cut off.
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

// printFor returns the print of the key that is imported, for an alias; "" if there is
// nothing to make one of.
func (i *importRun) printFor(ref record.ID) string {
	for _, what := range []byte{printSum, printHash, printOwn} {
		if material := i.store.printable(i.known(), what); material != nil {
			made, _ := i.store.printUnder(i.store.Peppers.Active(), ref, what, material)
			return made
		}
	}
	return ""
}

// isOf reports whether the alias of a locator belongs to the key that is imported. If that
// cannot be found out, isOf fails with errs.ErrConflict, unless the caller of Import said
// that it does not (Key.Another).
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
		return true, nil // the import has written its alias only
	case err != nil && !errors.Is(err, errs.ErrNotFound):
		return false, err
	case led.pending && led.print == "":
		return true, nil // the alias is older than prints
	case err == nil && known.Secret != "":
		return s.matches(ctx, k, known.Secret, s.ownDigest(known.Secret))
	case known.Another:
		return false, nil
	}
	return false, fmt.Errorf("%w: another key has this locator, or this one has it in another form", errs.ErrConflict)
}
