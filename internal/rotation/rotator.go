package rotation

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/lifecycle"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// Terms says how a key gives way to its successor.
type Terms struct {
	Overlap   time.Duration // how long the old key is still accepted; zero: not at all, whatever any clock says
	QuietTime time.Duration // after which of no use the old key ends before that; zero: it does not
	TTL       time.Duration // the lifetime of the successor; zero: that of the old key
}

// Rotator replaces keys by successors. It is safe for concurrent use if its fields are,
// none of which may be nil.
type Rotator struct {
	Keys  *keystate.Store
	Clock *clock.Clock
	Life  *lifecycle.Life // in which a successor that replaces nothing is revoked
	// ReadEpoch reads the epoch of a subject, whose record has the ID. Errors of the store
	// come as they are.
	ReadEpoch func(ctx context.Context, subject record.ID) (uint64, error)
	// Prefix is the prefix of the successor of a key, or the reason why it has none.
	Prefix func(old *keystate.State) (string, error)
	// StoreDigest stores the digest of a key's own text in the key.
	StoreDigest func(k *keystate.State, text string)
}

// Rotate issues a successor of a key and ends the key when the overlap is over. It returns
// the successor's text, which nobody else has, the key as it was before, and the successor.
// The key keeps its state until the last step, so that a rotation which has failed can be
// called again. errs.ErrAlready is that it was rotated by somebody, errs.ErrConflict that
// it was changed meanwhile; with errs.ErrIndeterminate it may have been rotated. A key that
// is refused for another reason than errs.ErrNotYetValid is not rotated, for that reason.
func (r *Rotator) Rotate(ctx context.Context, id record.ID, terms Terms) (text string, old, next *keystate.State, err error) {
	call := &rotating{Rotator: r, id: id, terms: terms, now: r.Clock.Read(), attempt: newAttempt()}
	if err := retry.Do(ctx, func(bool) error { return call.try(ctx) }); err != nil {
		return "", nil, nil, err
	}
	return call.text, call.old, call.next, nil
}

// rotating is one call of Rotate. Its sequence, each prefix of which is safe to stop
// after:
//
//  1. the old key names its successor-to-be and this attempt; it stays valid.
//  2. the successor is written. Nobody has its secret yet.
//  3. the old key gets its end, if this attempt is still the one it names.
//
// What step 2 may overwrite was read before step 1, so of two attempts at once at most
// one gets through both 2 and 3: the other meets a version it has not read. A later
// attempt finds the name and takes the successor over; its old secret was never handed
// out, because step 3 never came. Of several at once the one that is named last comes
// through, because the others wait for it and do not name themselves again, unless it
// seems to be dead.
type rotating struct {
	*Rotator
	id      record.ID
	terms   Terms
	now     time.Time
	attempt uint64
	named   bool // by the old key, at some time
	waits   keystate.Waits

	old, next *keystate.State
	text      string
}

func (r *rotating) try(ctx context.Context) error {
	old, err := r.Keys.Read(ctx, r.id)
	if err != nil {
		return err
	}
	epoch, err := r.rotatable(ctx, old, r.now)
	if err != nil {
		return err
	}
	if r.named && old.Rotating != 0 && old.Rotating != r.attempt {
		if err := r.waits.Wait(); err != nil {
			return err
		}
	}
	next, err := r.successorOf(old, r.terms, epoch, r.now)
	if err != nil {
		return err
	}
	cond, err := r.placeOf(ctx, old, next, r.now)
	if err != nil {
		return err
	}
	text := keytext.Format(next.Prefix, next.ID, keytext.NewSecret())
	r.StoreDigest(next, text)

	named := *old
	named.Successor, named.Rotating = next.ID, r.attempt
	if err := r.stepOn(ctx, old, &named); err != nil {
		return r.lostTo(ctx, old, err)
	}
	r.named = true
	if next.Version, err = r.Keys.Replace(ctx, r.Keys.RecordOf(next), cond); err != nil {
		return retry.Raced(err)
	}
	ended := named
	ended.Rotating, ended.RetireAt, ended.Retired = 0, clock.Millis(r.now.Add(r.terms.Overlap)), r.terms.Overlap == 0
	if r.terms.QuietTime > 0 && r.terms.Overlap > 0 {
		ended.Quiet = r.terms.QuietTime.Milliseconds()
		if err := putRecord(ctx, r.Keys, &ended); err != nil {
			return err
		}
	}
	if err := r.finish(ctx, &named, &ended, next); err != nil {
		return err
	}
	r.old, r.next, r.text = old, next, text
	return nil
}

// lostTo is err, with which a step failed from the state was, unless all that came
// between is another rotation: then it is tried again.
func (r *Rotator) lostTo(ctx context.Context, was *keystate.State, err error) error {
	if !errors.Is(err, errs.ErrConflict) {
		return err
	}
	k, lookErr := r.Keys.Read(ctx, was.ID)
	if lookErr == nil && sameButRotation(k, was) {
		return retry.Again(errs.ErrTakenOver)
	}
	return err
}

// sameButRotation reports whether two states of a key differ at most in what a
// rotation changes, and in the digest.
func sameButRotation(a, b *keystate.State) bool {
	x := *a
	takeRotation(&x, b)
	return sameButDigest(&x, b)
}

// placeOf gives next its ID, and returns the condition under which it is written:
// the place of what an unfinished attempt left, if there is such a thing.
func (r *Rotator) placeOf(ctx context.Context, old, next *keystate.State, now time.Time) (backend.Cond, error) {
	next.ID = keytext.NewID(now)
	if old.Rotating == 0 {
		return backend.IfAbsent(), nil
	}
	left, err := r.Keys.Read(ctx, old.Successor)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		next.ID = old.Successor
	case err != nil:
		return backend.Cond{}, err
	case left.Status == keystate.Active:
		next.ID, next.IssuedAt = left.ID, left.IssuedAt // both immutable
		return backend.IfVersion(left.Version), nil
	}
	// Somebody has revoked it, or disabled it, which this rotation may not undo:
	// that ID is not used again.
	return backend.IfAbsent(), nil
}

// stepOn makes of the old key's state was the state is. Any change meanwhile is
// errs.ErrConflict, for the successor does not have it; but a new digest is none, since
// every Verify may write one.
func (r *Rotator) stepOn(ctx context.Context, was, is *keystate.State) error {
	_, err := r.Keys.Edit(ctx, was.ID, func(k *keystate.State, _ bool) (bool, error) {
		// What has this attempt's number was written by it, and the answer lost.
		mine := is.Rotating != 0 && sameButDigest(k, is)
		if !mine && !sameButDigest(k, was) {
			return false, errs.ErrConflict
		}
		takeRotation(k, is)
		return true, nil
	})
	return err
}

// takeRotation takes over from another state of the key what a rotation changes.
func takeRotation(k, from *keystate.State) {
	k.Successor, k.Rotating, k.Quiet = from.Successor, from.Rotating, from.Quiet
	k.RetireAt, k.Retired = from.RetireAt, from.Retired
}

// sameButDigest reports whether two states of a key differ at most in the digest.
func sameButDigest(a, b *keystate.State) bool {
	x, y := *a, *b
	x.Digest, x.Pepper, x.ImportedHash = y.Digest, y.Pepper, y.ImportedHash
	return x.Same(&y)
}

// finish is step 3. Whether it was made matters more than how: once the old
// key has its end, the successor is all that its application has. So what is not
// known is looked up, and the successor is dropped only when it surely replaces
// nothing.
func (r *Rotator) finish(ctx context.Context, named, ended, next *keystate.State) error {
	err := r.stepOn(ctx, named, ended)
	if err == nil {
		return nil
	}
	old, lookErr := r.Keys.Read(ctx, named.ID)
	switch {
	case lookErr != nil || sameButDigest(old, named):
		return err // if it is not known whether it was made, it still may be
	case old.RetireAt == 0 && sameButRotation(old, named):
		return retry.Again(errs.ErrTakenOver)
	case old.RetireAt == 0:
		r.dropSuccessor(ctx, next) // not made, and never will be: the key has changed
		return errs.ErrConflict
	case old.Successor != next.ID:
		return errRotated
	}
	// Made: by this attempt, or by another one that has taken the successor over.
	successor, lookErr := r.Keys.Read(ctx, next.ID)
	switch {
	case lookErr != nil:
		return err
	case !successor.Digest.Equal(&next.Digest):
		return errRotated
	}
	// Once more, because what can be read need not be durable.
	_, err = r.Keys.Edit(ctx, old.ID, func(*keystate.State, bool) (bool, error) { return true, nil })
	return errs.Settle(err != nil, err)
}

// dropSuccessor revokes the successor of a rotation that did not come through,
// unless another attempt has taken it over. It is only tidy: nobody has the
// secret.
func (r *Rotator) dropSuccessor(ctx context.Context, next *keystate.State) {
	dropped := *next
	dropped.Status, dropped.Reason, dropped.RevokedAt = keystate.Revoked, "rotation not finished", clock.Millis(r.Clock.Read())
	rec := r.Keys.RecordOf(&dropped)
	_ = r.Life.Protect(ctx, func(ctx context.Context) error {
		_, err := r.Keys.Put(ctx, rec, backend.IfVersion(next.Version))
		if err == nil {
			r.Keys.Forget(rec.ID)
		}
		return err
	})
}

// errRotated is that somebody else has rotated the key.
var errRotated = fmt.Errorf("%w: rotated already", errs.ErrAlready)

// rotatable says why a key cannot be rotated, or returns its subject's epoch.
func (r *Rotator) rotatable(ctx context.Context, k *keystate.State, now time.Time) (uint64, error) {
	if k.RetireAt != 0 {
		return 0, errRotated
	}
	epoch, err := r.ReadEpoch(ctx, k.SubjectRef)
	if err != nil {
		return 0, errs.OfStore("read", err)
	}
	if k.Epoch < epoch {
		return 0, errs.ErrRevoked
	}
	if err := k.Refusal(clock.Millis(now)); err != nil && !errors.Is(err, errs.ErrNotYetValid) {
		return 0, err
	}
	return epoch, nil
}

func (r *Rotator) successorOf(old *keystate.State, terms Terms, epoch uint64, now time.Time) (*keystate.State, error) {
	prefix, err := r.Prefix(old)
	if err != nil {
		return nil, err
	}
	next := &keystate.State{
		Owner:       old.Owner,
		SubjectRef:  old.SubjectRef,
		Epoch:       epoch,
		Prefix:      prefix,
		Name:        old.Name,
		Scopes:      old.Scopes,
		Tags:        old.Tags,
		IssuedAt:    clock.Millis(now),
		NotBefore:   old.NotBefore,
		Status:      keystate.Active,
		Predecessor: old.ID,
		Lifetime:    old.Lifetime,
	}
	if terms.TTL > 0 {
		next.Lifetime = max(terms.TTL.Milliseconds(), 1)
	}
	if next.Lifetime > 0 {
		next.ExpiresAt = next.IssuedAt + next.Lifetime
	}
	if next.ExpiresAt != 0 && next.ExpiresAt <= next.NotBefore {
		return nil, fmt.Errorf("%w: the successor would never be valid", errs.ErrInvalid)
	}
	return next, nil
}

func newAttempt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1
}
