package pepper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// If a secret of the configuration is not what it was before, good credentials look
// unknown, and their holders would be told that it is their fault. So the store keeps a
// check value of each secret: checkLen bytes of what the secret makes of a fixed text. The
// check value is written when something is made with the secret for the first time. It is
// compared in two cases:
//
//   - before this process makes something with the secret for the first time. If the values
//     differ, it makes nothing, because the other processes could not check it (ErrPepper);
//   - when something that was presented does not match for the first time. Until then nobody
//     knows whether the credential or the secret is wrong. If that cannot be found out, the
//     answer is "could not check".
//
// A match needs no check value. Whoever has a copy of the store can check a guess of the
// secret by the check value. The digest of a key of his own would do for that too, and the
// secrets are too long to be guessed.
const checkLen = 8

// checkAgain is for how long, in nanoseconds, the result of a comparison is used that found
// no check value, or a different one.
const checkAgain = int64(10 * time.Second)

// importedText is the fixed text for the check value of KeeperConfig.Imported. If the
// function returns nothing for it, the function has no check value.
const importedText = "fob-key-check.0000000000000000"

// checkValue is the check value of one secret.
type checkValue struct {
	name string    // of the secret, for messages; never the secret
	ref  record.ID // the ID of its record in the store
	text string
	err  error // the error if the store has another check value
}

func newCheckValue(name string, ref record.ID, made digest.Digest, err error) checkValue {
	return checkValue{name: name, ref: ref, text: string(made[:checkLen]), err: err}
}

// proof is what is known of one secret.
type proof struct {
	state   proofState
	at      int64 // monotonic: when the state was found
	matched bool  // something that was made with the secret has matched
}

type proofState uint8

const (
	proofNone   proofState = iota
	proofAbsent            // there is no check value
	proofRight
	proofWrong
)

func (k *Keeper) proof(ref record.ID) proof {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proofs[ref]
}

func (k *Keeper) note(ref record.ID, to func(*proof)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.proofs[ref]
	to(&one)
	k.proofs[ref] = one
}

func checkRecord(what, name string) record.ID { return record.Named(record.Check, what, name) }

func pepperRecord(id string) record.ID { return checkRecord("pepper", id) }

// ofPepper returns the check value of a pepper that is configured.
func (k *Keeper) ofPepper(id string) checkValue {
	return newCheckValue(fmt.Sprintf("pepper %q", id), pepperRecord(id),
		digest.Keyed(k.keys()[id], []byte("fob key check "+id)),
		fmt.Errorf("%w: %q has another key than the one that is in use under this ID", errs.ErrPepper, id))
}

// ofImported returns the check value of KeeperConfig.Imported; ok is false if it has none.
func (k *Keeper) ofImported() (v checkValue, ok bool) {
	k.once.Do(func() {
		if k.cfg.Imported == nil {
			return
		}
		made := k.cfg.Imported(importedText)
		if len(made) == 0 {
			return
		}
		k.tells = true
		k.foreign = newCheckValue("foreign digest", checkRecord("foreign", "digest"),
			digest.Of(append([]byte("fob foreign digest check "), made...)),
			fmt.Errorf("%w: Config.Imported.Digest is another one than that of the keys imported by it", errs.ErrPepper))
	})
	return k.foreign, k.tells
}

// compare reads the check value in the store, compares it, and notes the result.
func (k *Keeper) compare(ctx context.Context, v checkValue) (proofState, error) {
	now := k.cfg.Clock.Now()
	rec, err := k.cfg.Store.Get(ctx, v.ref)
	state := proofAbsent
	switch {
	case errors.Is(err, backend.ErrNotFound):
	case err != nil:
		return proofNone, errs.OfStore("check "+v.name, err)
	default:
		r, err := record.Open(&rec, record.Check)
		if err != nil {
			return proofNone, fmt.Errorf("check %s: %w", v.name, err)
		}
		field, text, ok := r.Next()
		if !ok || field != record.FieldCheck || r.Rest != "" {
			return proofNone, fmt.Errorf("check %s: %w", v.name, record.Corrupt(&rec, "fields"))
		}
		if state = proofWrong; text == v.text { // not in constant time, because check values are no secrets
			state = proofRight
		}
	}
	k.note(v.ref, func(p *proof) { p.state, p.at = state, now.Mono })
	if state == proofWrong {
		k.cfg.Problem(v.name, v.err)
	} else {
		k.cfg.Problem(v.name, nil)
	}
	return state, nil
}

// Check compares every secret with its check value in the store. What is wrong with a
// secret goes to KeeperConfig.Problem. The errors that Check returns say why a secret could
// not be compared. A secret with which nothing was made yet has no check value and counts
// as right.
func (k *Keeper) Check(ctx context.Context) []error {
	var all []checkValue
	for _, id := range k.ids {
		all = append(all, k.ofPepper(id))
	}
	if v, ok := k.ofImported(); ok {
		all = append(all, v)
	}
	var failed []error
	for _, v := range all {
		if _, err := k.compare(ctx, v); err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// Vouch makes sure, before something is made under the active pepper, that it is the pepper
// that all processes use: the one whose check value was written first. It fails with
// errs.ErrPepper if it is not. Without peppers it returns nil.
func (k *Keeper) Vouch(ctx context.Context) error {
	if id := k.Active(); id != "" {
		return k.vouch(ctx, k.ofPepper(id))
	}
	return nil
}

// VouchImported is Vouch for KeeperConfig.Imported. It returns nil if that has no check
// value.
func (k *Keeper) VouchImported(ctx context.Context) error {
	if v, ok := k.ofImported(); ok {
		return k.vouch(ctx, v)
	}
	return nil
}

func (k *Keeper) vouch(ctx context.Context, v checkValue) error {
	if k.proof(v.ref).state == proofRight {
		return nil
	}
	return retry.Do(ctx, func(bool) error {
		state, err := k.compare(ctx, v)
		switch {
		case err != nil:
			return err
		case state == proofRight:
			return nil
		case state == proofWrong:
			return v.err
		}
		rec := backend.Record{ID: v.ref, Kind: record.Check, Created: clock.Millis(k.cfg.Clock.Read())}
		w := record.NewBody()
		w.Text(record.FieldCheck, v.text)
		w.Finish(&rec)
		if _, err := k.cfg.Store.Create(ctx, rec); err != nil {
			return retry.Raced(fmt.Errorf("write the check value of %s: %w", v.name, err))
		}
		return retry.Again(errs.ErrReadBack)
	})
}

// noteMatch notes that something that was made under a pepper has matched; "" is no pepper.
func (k *Keeper) noteMatch(id string) {
	if id == "" {
		return
	}
	ref := pepperRecord(id)
	if !k.proof(ref).matched {
		k.note(ref, func(p *proof) { p.matched = true })
	}
}

// Doubt must be called when something did not match that was made under a configured
// pepper; "" is no pepper. It returns nil if the pepper is the right one: then what was
// presented is wrong. It fails with errs.ErrPepper if the pepper is not the one in use, and
// also if there is no check value to tell: something was made under the pepper, so there is
// a check value, unless what was made is older than check values are.
func (k *Keeper) Doubt(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	return k.doubt(ctx, k.ofPepper(id), true)
}

// DoubtImported is Doubt for KeeperConfig.Imported. It must be called before what was
// presented counts as unknown. Possibly nothing was made with the function yet, so it
// counts as right if there is no check value.
func (k *Keeper) DoubtImported(ctx context.Context) error {
	if v, ok := k.ofImported(); ok {
		return k.doubt(ctx, v, false)
	}
	return nil
}

// doubt is Doubt for one secret. needed says that something was made with the secret, so
// that there should be a check value.
func (k *Keeper) doubt(ctx context.Context, v checkValue, needed bool) error {
	p := k.proof(v.ref)
	if p.state == proofNone || p.state != proofRight && k.cfg.Clock.Now().Age(p.at) >= checkAgain {
		state, err := k.compare(ctx, v)
		if err != nil {
			if p.matched && errs.IsOutage(err) {
				return nil
			}
			return err
		}
		p.state = state
	}
	switch {
	case p.state == proofWrong:
		return v.err
	case p.state == proofAbsent && needed && !p.matched:
		return fmt.Errorf("%w: nothing tells yet whether %s is the one in use", errs.ErrPepper, v.name)
	}
	return nil
}
