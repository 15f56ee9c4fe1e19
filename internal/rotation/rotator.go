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

// Terms are the terms on which a successor replaces a key.
type Terms struct {
	Overlap   time.Duration // how long the old key is still accepted; zero: not at all, whatever any clock says
	QuietTime time.Duration // without use, after which the old key ends before its overlap does; zero: it does not
	TTL       time.Duration // the lifetime of the successor; zero: that of the old key
}

// Rotator replaces keys by successors. It is safe for concurrent use if its fields are,
// none of which may be nil.
type Rotator struct {
	Keys  *keystate.Store
	Clock *clock.Clock
	Life  *lifecycle.Life // protects the write that revokes a successor which replaces nothing
	// Stamp reads the epochs of the key's subject and account, with which a new key of them
	// is stamped. It fails with errs.ErrRevoked or errs.ErrDisabled if the key is refused
	// because of its subject or its account. Other errors are as errs.OfStore makes them.
	Stamp func(ctx context.Context, k *keystate.State) (epoch, accountEpoch uint64, err error)
	// Prefix returns the prefix of the successor of a key, or the reason why a key can have
	// no successor.
	Prefix func(old *keystate.State) (string, error)
	// StoreDigest stores the digest of a key's text in the key.
	StoreDigest func(k *keystate.State, text string)
}

// Rotate issues a successor of a key, and gives the key an end when the overlap is over. It
// returns the text of the successor, which nobody else has, the key as it was before, and
// the successor. The state of the key changes in the last step only, so a rotation that has
// failed can be called again.
//
// The error is errs.ErrAlready if somebody else has rotated the key, and errs.ErrConflict
// if the key was changed meanwhile. With errs.ErrIndeterminate the key may have been
// rotated. A key that is refused is not rotated, and the error is that of the refusal; but
// a key that is not yet valid (errs.ErrNotYetValid) is rotated.
func (r *Rotator) Rotate(ctx context.Context, id record.ID, terms Terms) (text string, old, next *keystate.State, err error) {
	call := &rotationRun{Rotator: r, id: id, terms: terms, now: r.Clock.Read(), attempt: newAttempt()}
	if err := retry.Do(ctx, func(bool) error { return call.try(ctx) }); err != nil {
		return "", nil, nil, err
	}
	return call.text, call.old, call.next, nil
}

// rotationRun is one call of Rotate. It has three steps, and it is safe to stop after each:
//
// 1. The old key is written with the ID of its successor-to-be and the number of this
// attempt.
//
//	The old key stays valid.
//
// 2. The successor is written. Nobody has its secret yet. 3. The old key is written with
// its end, if the attempt that it names is still this one.
//
// The record that step 2 may overwrite was read before step 1. So of two attempts at once
// at most one gets through both step 2 and step 3: in one of these steps the other one
// meets a version that it has not read. A later attempt finds the ID in the old key and
// takes the successor over. The old secret of that successor was never handed out, because
// step 3 never came. Of several attempts at once the one that the old key names last
// succeeds: the others wait for it and do not write their number again, unless it seems to
// have crashed.
type rotationRun struct {
	*Rotator
	id      record.ID
	terms   Terms
	now     time.Time
	attempt uint64
	named   bool // step 1 of this attempt was made at some time
	waits   keystate.Waits

	old, next *keystate.State
	text      string
}

func (r *rotationRun) try(ctx context.Context) error {
	old, err := r.Keys.Read(ctx, r.id)
	if err != nil {
		return err
	}
	if err := r.checkRotatable(old, r.now); err != nil {
		return err
	}
	epoch, accountEpoch, err := r.Stamp(ctx, old)
	if err != nil {
		return err
	}
	if r.named && old.Rotating != 0 && old.Rotating != r.attempt {
		if err := r.waits.Wait(); err != nil {
			return err
		}
	}
	next, err := r.successorOf(old, r.terms, r.now)
	if err != nil {
		return err
	}
	next.Epoch, next.AccountEpoch = epoch, accountEpoch
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

// lostTo returns the error of a step that failed with err. If another rotation is the only
// change of the key since the state was, the rotation is tried again; otherwise the error
// is err.
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

// sameButRotation reports whether two states of a key are equal except for the fields that
// a rotation changes, and the digest.
func sameButRotation(a, b *keystate.State) bool {
	x := *a
	takeRotation(&x, b)
	return sameButDigest(&x, b)
}

// placeOf sets the ID of next, and returns the condition under which next is written. If an
// unfinished attempt has left a successor, next takes its place.
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
		next.ID, next.IssuedAt = left.ID, left.IssuedAt // both must not change
		return backend.IfVersion(left.Version), nil
	}
	// Somebody has revoked or disabled the successor that was left. This rotation must not
	// undo that, so next gets another ID.
	return backend.IfAbsent(), nil
}

// stepOn changes the old key from the state was to the state is. If the key was changed
// meanwhile, stepOn fails with errs.ErrConflict, because the successor does not have that
// change. But a new digest is no such change, because every Verify may write one.
func (r *Rotator) stepOn(ctx context.Context, was, is *keystate.State) error {
	_, err := r.Keys.Edit(ctx, was.ID, func(k *keystate.State, _ bool) (bool, error) {
		// A state with the number of this attempt was written by this attempt, and the
		// answer of the store was lost.
		mine := is.Rotating != 0 && sameButDigest(k, is)
		if !mine && !sameButDigest(k, was) {
			return false, errs.ErrConflict
		}
		takeRotation(k, is)
		return true, nil
	})
	return err
}

// takeRotation copies the fields that a rotation changes from another state of the key.
func takeRotation(k, from *keystate.State) {
	k.Successor, k.Rotating, k.Quiet = from.Successor, from.Rotating, from.Quiet
	k.RetireAt, k.Retired = from.RetireAt, from.Retired
}

// sameButDigest reports whether two states of a key are equal except for the digest.
func sameButDigest(a, b *keystate.State) bool {
	x, y := *a, *b
	x.Digest, x.Pepper, x.ImportedHash = y.Digest, y.Pepper, y.ImportedHash
	return x.Same(&y)
}

// finish is step 3. If it fails, finish finds out whether the step was made after all: once
// the old key has its end, the application has only the successor. So an unknown outcome is
// looked up in the store, and the successor is dropped only if it surely replaces nothing.
func (r *Rotator) finish(ctx context.Context, named, ended, next *keystate.State) error {
	err := r.stepOn(ctx, named, ended)
	if err == nil {
		return nil
	}
	old, lookErr := r.Keys.Read(ctx, named.ID)
	switch {
	case lookErr != nil || sameButDigest(old, named):
		return err // the step may still be applied, if it is unknown whether it was
	case old.RetireAt == 0 && sameButRotation(old, named):
		return retry.Again(errs.ErrTakenOver)
	case old.RetireAt == 0:
		r.dropSuccessor(ctx, next) // the step was not made and never will be, because the key has changed
		return errs.ErrConflict
	case old.Successor != next.ID:
		return errRotated
	}
	// The step was made, by this attempt or by another one that has taken the successor
	// over.
	successor, lookErr := r.Keys.Read(ctx, next.ID)
	switch {
	case lookErr != nil:
		return err
	case !successor.Digest.Equal(&next.Digest):
		return errRotated
	}
	// The key is written once more, because what can be read need not be durable.
	_, err = r.Keys.Edit(ctx, old.ID, func(*keystate.State, bool) (bool, error) { return true, nil })
	return errs.Settle(err != nil, err)
}

// dropSuccessor revokes the successor of a rotation that did not succeed, unless another
// attempt has taken it over. It is not needed for safety, because nobody has the secret of
// the successor, and so its error does not matter.
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

// errRotated says that somebody else has rotated the key.
var errRotated = fmt.Errorf("%w: rotated already", errs.ErrAlready)

// checkRotatable returns the reason why a key cannot be rotated, or nil, as far as its own
// record says.
func (r *Rotator) checkRotatable(k *keystate.State, now time.Time) error {
	if k.RetireAt != 0 {
		return errRotated
	}
	if err := k.Refusal(clock.Millis(now)); err != nil && !errors.Is(err, errs.ErrNotYetValid) {
		return err
	}
	return nil
}

// successorOf returns the state of the successor of a key, without an ID and a digest.
func (r *Rotator) successorOf(old *keystate.State, terms Terms, now time.Time) (*keystate.State, error) {
	prefix, err := r.Prefix(old)
	if err != nil {
		return nil, err
	}
	next := &keystate.State{
		Owner:       old.Owner,
		SubjectRef:  old.SubjectRef,
		AccountRef:  old.AccountRef,
		Parent:      old.Parent,
		Prefix:      prefix,
		Name:        old.Name,
		Scopes:      old.Scopes,
		Roles:       old.Roles,
		Grants:      old.Grants,
		Meta:        old.Meta,
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

// newAttempt draws the number of an attempt, which is never zero.
func newAttempt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1
}
