// Package idempotency issues a key once, however often it is asked for under the same
// idempotency key: a repeated call gets the same secret. It does not know how the text of a
// key is drawn or digested, nor how the key is cached: the functions of an Issuer do.
//
// idempotency.go has the steps of writing the two records, that of the answer and that of
// the key. answer.go has how the secret is sealed in the answer, and how two requests are
// told apart.
package idempotency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// keptBeyond is how much longer the record of a key is kept than the answer that leads to
// it. If a repeated call finds an answer without a key, it takes the first call for one
// that was cut off, and writes the key. So as long as a call may trust the answer, the
// record of the key must be there, even if the key was revoked. The time of the answer
// itself already allows for a clock that is late (clock.PurgeMargin); keptBeyond allows for
// a call that is slow.
const keptBeyond = time.Hour

// Issuer issues keys under idempotency keys. It is safe for concurrent use if its functions
// are.
type Issuer struct {
	Keys    keystate.Store
	Peppers *pepper.Keeper
	Window  time.Duration // how long a call can be repeated
	// RetiredPrefixes are prefixes with which no key is issued any more. One of them may
	// have been the default prefix when a key was issued.
	RetiredPrefixes []string
	// Draw gives a key an ID, draws its secret, stores the digest in the key and returns
	// the key's text.
	Draw func(k *keystate.State) string
	// Digest stores the digest of a key's own text in the key.
	Digest func(k *keystate.State, text string)
	// Find reads a key from the store, and keeps it for the caller of Issue. It fails with
	// errs.ErrNotFound if there is none.
	Find func(ctx context.Context, id record.ID) error
}

// Issue issues the key k, which has no ID and no digest yet, at now (Unix milliseconds). If
// an earlier call had the same idempotency key and request, Issue gives the answer of that
// call. It returns the text of the key, and sets the ID of k. created says that this call
// wrote the key, which is k; otherwise the key was written before, and Find was called for
// it.
//
// The sealed answer is stored first, and the key second. After a crash between the two, a
// repeated call finishes the work with the same secret. The error is errs.ErrInvalid for an
// idempotency key that is not 16 to 256 bytes long, and errs.ErrIdempotency for one that
// was used for another request.
func (i *Issuer) Issue(ctx context.Context, key string, req Request, k *keystate.State, now int64) (text string, created bool, err error) {
	if n := len(key); n < 16 || n > 256 {
		return "", false, fmt.Errorf("%w: idempotency key of %d bytes, want 16 to 256", errs.ErrInvalid, n)
	}
	ref := record.Named(record.Idempotency, k.Owner, key)
	request := req.digest(k.Prefix)
	err = retry.Do(ctx, func(bool) error {
		old, err := i.Keys.Get(ctx, ref)
		cond := backend.IfAbsent()
		switch {
		case errors.Is(err, backend.ErrNotFound):
		case err != nil:
			return errs.OfStore("fob: issue key", err)
		case now < old.PurgeAt-clock.PurgeMargin.Milliseconds():
			text, created, err = i.repeat(ctx, key, req, k, &old)
			return err
		default:
			cond = backend.IfVersion(old.Version) // the window of that answer is over
		}
		text = i.Draw(k)
		rec := backend.Record{
			ID:      ref,
			Kind:    record.Idempotency,
			Owner:   k.Owner,
			Created: k.IssuedAt,
			PurgeAt: k.IssuedAt + (i.Window + clock.PurgeMargin).Milliseconds(),
		}
		k.KeptUntil = rec.PurgeAt + keptBeyond.Milliseconds()
		if v, replaces := cond.Version(); replaces && v == old.Version {
			rec.Created = old.Created // must not change
		}
		answer, err := i.seal(key, ref, text)
		if err != nil {
			return err
		}
		w := record.NewBody()
		w.ID(record.FieldTarget, k.ID)
		w.Text(record.FieldSealed, answer)
		w.Text(record.FieldRequest, string(request[:]))
		w.Finish(&rec)
		if _, err = i.Keys.Replace(ctx, rec, cond); err != nil {
			// If a call with the same idempotency key came first, its answer is the answer
			// of this call too.
			return retry.Raced(fmt.Errorf("fob: issue key: %w", err))
		}
		created, err = i.finish(ctx, k)
		return err
	})
	if err != nil {
		return "", false, err
	}
	return text, created, nil
}

// finish writes the key that belongs to a stored answer, unless another call with the same
// answer has written it meanwhile.
func (i *Issuer) finish(ctx context.Context, k *keystate.State) (created bool, err error) {
	err = i.Keys.Add(ctx, k)
	if errors.Is(err, errs.ErrConflict) {
		return false, i.Find(ctx, k.ID)
	}
	if err != nil {
		return false, fmt.Errorf("fob: issue key: %w", err)
	}
	return true, nil
}

// repeat answers a repeated call from rec, the record of the sealed answer.
func (i *Issuer) repeat(ctx context.Context, key string, req Request, k *keystate.State, rec *backend.Record) (text string, created bool, err error) {
	r, err := record.Open(rec, record.Idempotency)
	if err != nil {
		return "", false, err
	}
	var answer, asked string
	for field, v := range r.Fields {
		switch field {
		case record.FieldTarget:
			k.ID = r.ID(v)
		case record.FieldSealed:
			answer = v
		case record.FieldRequest:
			asked = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || answer == "" || k.ID == (record.ID{}) {
		return "", false, record.Corrupt(rec, "fields")
	}
	text, err = i.open(key, rec.ID, answer)
	if errors.Is(err, errs.ErrCorrupt) && len(answer) > int(answer[0]) {
		err = cmp.Or(i.Peppers.Doubt(ctx, answer[1:1+int(answer[0])]), err)
	}
	if err != nil {
		return "", false, err
	}
	prefix, problem := keytext.Split(text)
	if problem != keytext.OK || keytext.Check(text) != keytext.OK {
		return "", false, record.Corrupt(rec, "answer")
	}
	if req.DefaultPrefix && slices.Contains(i.RetiredPrefixes, prefix) {
		k.Prefix = prefix // that prefix was the default then
	}
	if request := req.digest(k.Prefix); asked != string(request[:]) {
		return "", false, errs.ErrIdempotency
	}
	err = i.Find(ctx, k.ID)
	if errors.Is(err, errs.ErrNotFound) {
		// The first call ended between its two steps.
		k.KeptUntil = rec.PurgeAt + keptBeyond.Milliseconds()
		i.Digest(k, text)
		created, err = i.finish(ctx, k)
	}
	return text, created, err
}
