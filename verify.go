package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/usagelog"
)

// Verify checks what a client presented and returns the credential. It is the hot path:
// for a key in the cache it costs one SHA-256 block and one lookup, allocates nothing and
// takes no lock.
//
// An error that is ErrRejected (ErrMalformed, ErrUnknown, ErrExpired, ErrRevoked,
// ErrDisabled …) means that the credential is bad: answer 401. Any other error (the store
// failed, a record is corrupt, ctx ended) means that it could not be checked: answer 503.
// A Verify that begins after Revoke, Disable or another change through this Manager has
// returned never uses the old state; a change made elsewhere is seen within
// Config.MaxStaleness. Once any call of this Manager has returned a state, no call that
// begins later returns an older one.
//
// The Manager keeps no part of presented.
func (m *Manager) Verify(ctx context.Context, presented string) (Credential, error) {
	return m.verify(ctx, presented, false)
}

// Fresh returns a Verifier that trusts no cached answer: what it accepts was read from
// the store during the call. It sees every change whose call had returned before, in this
// or another process. If the store does not answer, that is an error, whatever Config
// says. It is meant for the routes that move money, because it costs reads of the store:
// two for a key, three to five for an imported one (two more for each other key that has
// its locator), and three to six for a token: what may have revoked the token, its
// family, its subject and its issuer's tokens, the key that it was exchanged for, and the
// subject of that key; one more for the account. Where one of these has changed since this
// Manager read it last, or changes meanwhile, they are read again. Reads of token keys that
// are not known yet come on top.
func (m *Manager) Fresh() Verifier {
	return VerifierFunc(func(ctx context.Context, presented string) (Credential, error) {
		return m.verify(ctx, presented, true)
	})
}

// textForm is one form that the text of a credential has. There are three, a file each:
// native keys (verify_key.go), imported keys (verify_imported.go) and tokens
// (verify_token.go). A form loads the answer to a text that is not in the cache.
type textForm = engine.Loader[body]

// The number of a form. Native keys have the index of their prefix in Manager.prefixes,
// the others have these.
const (
	formImported = -1
	formToken    = -2
)

// recognised is what the text of a credential tells by itself.
type recognised struct {
	form   textForm
	number int16
	memory *cache.Cache[answer]
	// hashed is the part of the text that tells it from all others. It is the caller's
	// memory, and only read.
	hashed []byte
	// placed says that at, the cache key of the answer, is part of the text. Otherwise it
	// is a part of the digest of hashed.
	placed bool
	at     cache.Key
	tail   engine.Tail // of a native key: its checksum, which hashed lacks
}

// verify is the path of every verification, from the text to the answer.
func (m *Manager) verify(ctx context.Context, presented string, fresh bool) (Credential, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}

	// Recognise the form of the text.
	var text recognised
	if err := m.recognise(presented, &text); err != nil {
		return nil, err
	}

	// Look up the cache entry, and read the clock. If the key of the entry is known, look it
	// up before the text is hashed, so that it comes from memory meanwhile. Then the checksum
	// of the text is compared with that of the entry, which takes less time than to check it.
	proved := m.engine.Proved()
	var found *answer
	var ok, alike bool
	if text.placed {
		found, ok = text.memory.Find(text.at)
		if alike = ok && found.Tail == text.tail; !alike {
			if err := checkKey(presented); err != nil {
				return nil, err
			}
		}
	}
	now := m.engine.NowSince(proved)
	seen := engine.Digest(sha256.Sum256(text.hashed))
	if !text.placed {
		text.at = cache.Key(seen[:len(text.at)])
		found, ok = text.memory.Find(text.at)
	}
	believed := ok && m.engine.Believes(found.AsOf(), now)
	same := ok && found.Form == text.number && found.Seen.Equal(&seen)

	// Use the entry if it is current,
	if same && believed && !fresh {
		found.Confirm(now)
		if b := &found.Body; b.key != nil && b.from <= now.MS && now.MS < b.to {
			m.usage.Used(&b.use, now.MS) // which counts the hit too
			return b.key, nil
		}
		text.memory.Found(true)
		return m.decide(&found.Body, now.MS, true)
	}
	text.memory.Found(ok)

	// or load the answer from the store.
	if alike && !same {
		if err := checkKey(presented); err != nil {
			return nil, err
		}
	}
	if text.placed && believed && !fresh {
		return nil, ErrUnknown // the ID is known, and this is not its secret
	}
	q := m.engine.NewLookup()
	q.Now, q.Fresh, q.Presented = now, fresh, presented
	q.Loader, q.Form, q.Memory, q.At, q.Seen, q.Tail = text.form, text.number, text.memory, text.at, seen, text.tail
	if same {
		q.Old = found
	}
	loaded, err := m.engine.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	// The answer may have expired meanwhile, unless it has no time bounds.
	if loaded.Body.from != 0 || loaded.Body.to != clock.Forever {
		now = m.clock.Now()
	}
	return m.decide(&loaded.Body, now.MS, false)
}

// recognise tells the form of a text, or why it has none.
func (m *Manager) recognise(presented string, text *recognised) error {
	prefix, problem := keytext.Split(presented)
	if problem == keytext.OK {
		if number := m.accepts(prefix); number != noPrefix {
			m.recogniseKey(presented, number, text)
			return nil
		}
	}
	switch {
	case m.tokens != nil && isToken(presented):
		return m.recogniseToken(presented, text)
	case problem == keytext.OK && m.hasPrefix(prefix):
		if err := checkKey(presented); err != nil {
			return err
		}
		return errs.ErrWrongEnvironment
	case m.cfg.Imported != nil:
		return m.recogniseImported(presented, text)
	case problem == keytext.OK:
		return errs.ErrKeyPrefix
	}
	return errs.OfText(problem)
}

// decide ends a verification: it returns what an answer says at an instant, and counts
// the use. held says that the answer is in the cache.
func (m *Manager) decide(b *body, ms int64, held bool) (Credential, error) {
	cred, err := b.at(ms)
	if cell := b.cell(); err == nil && cell != nil {
		if held {
			m.usage.Used(cell, ms)
		} else {
			m.usage.Count(cell.ID, ms)
		}
	}
	return cred, err
}

// answer is the cache entry of one credential that was found.
type answer = engine.Answer[body]

// lookup is one verification that the cache alone could not answer.
type lookup = engine.Lookup[body]

// body is what an answer says of a credential, and for which time. What a hit of a key
// looks at comes first, see engine.Answer.
type body struct {
	// from and to bound the time in which it is accepted: from <= now < to, in Unix
	// milliseconds. If they are equal, it never is.
	from, to int64
	key      *Key // nil for a token
	_        [8 - unsafe.Sizeof(uintptr(0))]byte
	use      usagelog.Cell // of a key
	refused  error         // why it is not accepted whatever the time

	token  *Token       // what Verify returns: the claims, as far as the key allows them
	claims *Token       // what was sealed; token itself, unless the key allows less
	parent *parentState // the key that it came from; nil if from none
}

// at is what b says at an instant. It does not count the use.
func (b *body) at(ms int64) (Credential, error) {
	if ms < b.from || ms >= b.to {
		return nil, errs.About(backend.ID(b.id()), b.refusal(ms))
	}
	if b.key != nil {
		return b.key, nil
	}
	return b.token, nil
}

// id is the ID of the credential.
func (b *body) id() ID {
	if b.key != nil {
		return b.key.ID()
	}
	return b.token.id
}

// cell is where uses are counted: those of a token count for its key.
func (b *body) cell() *usagelog.Cell {
	switch {
	case b.key != nil:
		return &b.use
	case b.parent != nil:
		return &b.parent.use
	}
	return nil
}

// refusal is why b is not accepted at an instant outside of its bounds. The key of a
// token is asked first, because it knows why it ended.
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
		return errs.ErrNotYetValid
	}
	return ErrExpired
}

// sizeOfAnswer is the memory that an answer points to, in bytes. The key of a token is
// counted in full: other answers usually share it, but need not.
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

// Verifier checks what was presented and returns the credential. It can neither issue nor
// revoke, so it is what middleware should get. [*Manager] implements it.
//
// An error that is ErrRejected means that the credential is bad; any other
// means that it could not be checked. A Verifier is safe for concurrent use
// and keeps nothing of presented: servers reuse that memory.
type Verifier interface {
	Verify(ctx context.Context, presented string) (Credential, error)
}

// errNoVerifier is the error of a nil verifier. It is no rejection.
var errNoVerifier = fmt.Errorf("%w: no verifier", ErrInvalid)

// VerifierFunc is a function as a Verifier.
type VerifierFunc func(ctx context.Context, presented string) (Credential, error)

// Verify calls f. If f is nil, it fails with an error that is no rejection.
func (f VerifierFunc) Verify(ctx context.Context, presented string) (Credential, error) {
	if f == nil {
		return nil, errNoVerifier
	}
	return f(ctx, presented)
}

// Chain tries verifiers in order. The first acceptance wins. A verifier that could not
// check ends the chain with its error, as does a rejection for a reason other than
// ErrMalformed or ErrUnknown: a revoked credential is not offered to the next system. A
// chain of no verifiers rejects everything. If a verifier is nil, the chain always fails
// with an error that is no rejection.
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
