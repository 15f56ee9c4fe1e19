package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/usagelog"
)

// Verify checks what a client presented and returns the credential it is. It
// is the hot path: for a key in the cache it costs one SHA-256 block and one
// lookup, allocates nothing and takes no lock.
//
// An error that is ErrRejected (ErrMalformed, ErrUnknown, ErrExpired,
// ErrRevoked, ErrDisabled …) means that the credential is bad: answer 401. Any
// other error (the store failed, a record is corrupt, ctx ended) means that it
// could not be checked: answer 503. A Verify that begins after Revoke, Disable
// or another change through this Manager has returned never uses the old
// state; a change made elsewhere is seen within Config.MaxStaleness. And once any call of
// this Manager has told of a state, none that begins later tells of an older one.
//
// Nothing of presented is kept.
func (m *Manager) Verify(ctx context.Context, presented string) (Credential, error) {
	return m.verify(ctx, presented, false)
}

// Fresh returns a Verifier that trusts no memory: what it accepts was read from the
// store during the call. A change that another process has made, and that returned
// there, is seen; a store that does not answer is an error, whatever Config says.
// What it costs is reads of the store, for the routes that move money: two for a key,
// three to five for an imported one (two more for each other key that has its locator),
// and three to six for a token (of what ends it, its
// family, its subject and its issuer, and of the key that it was exchanged for and the
// subject of that), besides those of token keys that are not known yet.
func (m *Manager) Fresh() Verifier {
	return VerifierFunc(func(ctx context.Context, presented string) (Credential, error) {
		return m.verify(ctx, presented, true)
	})
}

// textForm is one form that the text of a credential has. There are three, a file each:
// native keys (verify_key.go), imported keys (verify_imported.go) and tokens
// (verify_token.go). A form says what becomes of a text of which memory has no answer.
type textForm interface {
	engine.Loader[body]
	// check is the rest of the check of a text. A hit does not need it, for what is in memory
	// was checked when it came in.
	check(presented string) error
}

// The number of a form: of native keys the index of the prefix in Manager.prefixes, and
// these of the others.
const (
	formImported = -1
	formToken    = -2
)

// recognised is what can be said of a text by itself.
type recognised struct {
	form   textForm
	number int16
	memory *cache.Cache[answer]
	// hashed is the part of the text that tells it from all others. It is the caller's
	// memory, and only read.
	hashed []byte
	// placed says that at is the place of the answer, which the text itself names. Else it
	// is a part of the digest of hashed.
	placed bool
	at     cache.Key
}

// verify is the way of every verification, from the text to the answer.
func (m *Manager) verify(ctx context.Context, presented string, fresh bool) (Credential, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}

	// Recognise the form of the text.
	var text recognised
	if err := m.recognise(presented, &text); err != nil {
		return nil, err
	}

	// Look up what memory has in its place. A place that is known is looked at before the
	// text is hashed: the processor fetches the answer from memory while it hashes.
	now := m.engine.Now()
	var found *answer
	var ok, believed bool
	if text.placed {
		if found, ok = text.memory.Get(text.at, now.Mono); ok {
			believed = m.engine.Believes(found.AsOf(), now)
		}
	}
	seen := engine.Digest(sha256.Sum256(text.hashed))
	if !text.placed {
		text.at = cache.Key(seen[:len(text.at)])
		if found, ok = text.memory.Get(text.at, now.Mono); ok {
			believed = m.engine.Believes(found.AsOf(), now)
		}
	}
	same := ok && found.Form == text.number && found.Seen.Equal(&seen)

	// Believe it,
	if same && believed && !fresh {
		found.Confirm(now)
		return m.decide(&found.Body, now.MS, true)
	}

	// or load it from the store.
	if err := text.form.check(presented); err != nil {
		return nil, err
	}
	if text.placed && believed && !fresh {
		return nil, ErrUnknown // the ID is known, and this is not its secret
	}
	q := lookup{
		Reading: engine.Reading{Now: now, Fresh: fresh},
		Loader:  text.form, Form: text.number, Memory: text.memory, At: text.at, Seen: seen, Presented: presented,
	}
	if same {
		q.Old = found
	}
	loaded, err := m.engine.Find(ctx, &q)
	if err != nil {
		return nil, err
	}
	// It may have expired meanwhile. What has no time needs no other look at the clock.
	if loaded.Body.from != 0 || loaded.Body.to != clock.Forever {
		now = m.clock.Now()
	}
	return m.decide(&loaded.Body, now.MS, false)
}

// recognise tells the form of a text, or why it has none.
func (m *Manager) recognise(presented string, text *recognised) error {
	ours, err := m.recogniseKey(presented, text)
	switch {
	case ours:
		return err
	case m.tokens != nil && isToken(presented):
		return m.recogniseToken(presented, text)
	case m.cfg.Foreign != nil && !m.fromElsewhere(presented):
		return m.recogniseImported(presented, text)
	}
	return m.unrecognised(presented)
}

// decide ends a verification: it says what an answer is at an instant, and counts the use.
// held says that the answer is in memory.
func (m *Manager) decide(b *body, ms int64, held bool) (Credential, error) {
	if ms < b.from || ms >= b.to {
		return nil, b.refusal(ms)
	}
	if cell := b.cell(); cell != nil {
		if held {
			m.usage.Used(cell, ms)
		} else {
			m.usage.Count(cell.ID, ms)
		}
	}
	return b.credential(), nil
}

// answer is what memory holds of one credential that was found.
type answer = engine.Answer[body]

// lookup is one verification that memory could not answer at once.
type lookup = engine.Lookup[body]

// body is what an answer says of a credential, and at which time.
type body struct {
	// from and to bound the time in which it is accepted: from <= now < to, in Unix
	// milliseconds. Where they are equal it never is.
	from, to int64
	use      usagelog.Cell // of a key
	refused  error         // why it is not accepted whatever the time

	key *Key // nil for a token

	token  *Token       // what is answered: the claims, as far as the key allows them
	claims *Token       // what was sealed; token itself, unless the key allows less
	parent *parentState // the key that it came from; nil if from none
}

// at is what b says at an instant, where nobody counts its use.
func (b *body) at(ms int64) (Credential, error) {
	if ms < b.from || ms >= b.to {
		return nil, b.refusal(ms)
	}
	return b.credential(), nil
}

func (b *body) credential() Credential {
	if b.key != nil {
		return b.key
	}
	return b.token
}

// cell is where uses are counted: those of a token are its key's.
func (b *body) cell() *usagelog.Cell {
	switch {
	case b.key != nil:
		return &b.use
	case b.parent != nil:
		return &b.parent.use
	}
	return nil
}

// refusal is why b is not accepted at an instant that lies outside of its bounds. Of a token
// its key is asked first, which knows why it ended.
func (b *body) refusal(ms int64) error {
	switch {
	case b.refused != nil:
		return b.refused
	case b.key != nil:
		return b.key.state.Refusal(ms)
	case b.parent != nil:
		if err := b.parent.key.state.Refusal(ms); err != nil {
			return err
		}
	}
	if ms < b.from {
		return ErrNotYetValid
	}
	return ErrExpired
}

// sizeOfAnswer is the memory that an answer takes beside itself, in bytes. The key of a
// token is shared, as a rule, which is nothing to rely on.
func sizeOfAnswer(a *answer) int {
	b := &a.Body
	if b.key != nil {
		return b.key.size()
	}
	n := b.claims.size()
	if b.parent != nil {
		n += int(unsafe.Sizeof(*b.parent)) + b.parent.key.size()
	}
	if b.token != b.claims {
		n += b.token.size()
	}
	return n
}

// Verifier checks what was presented and returns whose it is. It can neither
// issue nor revoke: hand it to middleware. *Manager implements it.
//
// An error that is ErrRejected means that the credential is bad; any other
// means that it could not be checked. A Verifier is safe for concurrent use
// and keeps nothing of presented: servers reuse that memory.
type Verifier interface {
	Verify(ctx context.Context, presented string) (Credential, error)
}

// errNoVerifier is what a nil verifier says: it is no rejection.
var errNoVerifier = fmt.Errorf("%w: no verifier", ErrInvalid)

// VerifierFunc is a function as a Verifier.
type VerifierFunc func(ctx context.Context, presented string) (Credential, error)

// Verify calls f. If that is nil, nothing can be checked.
func (f VerifierFunc) Verify(ctx context.Context, presented string) (Credential, error) {
	if f == nil {
		return nil, errNoVerifier
	}
	return f(ctx, presented)
}

// Chain tries verifiers in order. The first acceptance wins. A verifier that
// could not check ends the chain with its error, as does a rejection for a
// reason other than ErrMalformed or ErrUnknown: a revoked credential is not
// offered to the next system. Chain of nothing rejects everything; one of which a
// verifier is nil checks nothing.
func Chain(verifiers ...Verifier) Verifier {
	verifiers = append([]Verifier(nil), verifiers...)
	if slices.ContainsFunc(verifiers, func(v Verifier) bool { return guard.Missing(v) }) {
		return VerifierFunc(nil)
	}
	return VerifierFunc(func(ctx context.Context, presented string) (Credential, error) {
		last := ErrUnknown
		for _, v := range verifiers {
			cred, err := v.Verify(ctx, presented)
			if err == nil {
				return cred, nil
			}
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknown) {
				return nil, err
			}
			last = err
		}
		return nil, last
	})
}
