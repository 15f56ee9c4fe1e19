package fob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/legacyhash"
)

// ForeignKeys says how keys made by another system are recognised, so that they
// can be imported (ImportKey) and go on working. Their text is parsed on its
// own path: it never makes the native form laxer. The zero ForeignKeys accepts
// imports by raw value and by unsalted SHA-256.
type ForeignKeys struct {
	// Locate returns the public part of a presented key, by which its record is
	// found: the ID or start of a key like "ab12cd.secret". It is needed for
	// salted and slow hashes, which cannot be looked up by. ok is false for text
	// that is no such key. The result must not be secret on its own.
	Locate func(presented string) (locator string, ok bool)
	// Digest is the other system's own digest of a presented key, for records
	// imported by ForeignKey.Digest: keyed with a secret of its own, say. It must
	// be deterministic and hard to invert, and is called for every foreign text
	// that is not in the cache. Nil, or nothing, means that the text is no key of
	// that system: it matches no imported digest.
	Digest func(presented string) []byte
	// MaxLength bounds a foreign key in bytes, 8 to 4,096; zero means 512.
	MaxLength int
	// SlowChecks bounds how many slow hashes (bcrypt, PBKDF2, argon2id) are
	// computed at once: a flood of wrong keys costs this many cores, never all.
	// Some more wait for their turn, the rest get ErrBusy; of one key one is
	// computed at a time and none waits, so that a flood on one locator does not
	// shut out the others. An argon2id hash counts as many times as it has lanes
	// (p), for it runs on so many cores; with more lanes than this it is not
	// imported (ErrInvalid), and where a Manager with a larger bound imported it, its
	// check fails (with an error that is no rejection). Zero means half of GOMAXPROCS,
	// at least 1.
	SlowChecks int
}

// ForeignKey is what is known of a key made by another system. Set exactly one
// of Secret, Hash and Digest.
type ForeignKey struct {
	// Secret is the key itself. See Locator for what the store then keeps.
	Secret string
	// Hash is the other system's hash of it: SHA-256 in hex; or "$sha512$…",
	// bcrypt, PBKDF2 or argon2id in the forms that the guide for imports lists.
	// It is verified once, at the first use, and then replaced by the digest made
	// here.
	Hash string
	// Digest is what ForeignKeys.Digest returns for it, 16 to 64 bytes.
	Digest []byte
	// Locator is what ForeignKeys.Locate returns for it. Required for a Hash that
	// is salted, else optional: without it the key is found by its SHA-256 (or Digest),
	// under no pepper. Whoever has a copy of the store can then check guesses of a weak
	// secret: give a Locator where there is one, and rotate the others.
	Locator string
}

// Format writes nothing of the key, for every verb.
func (ForeignKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String returns a redaction.
func (ForeignKey) String() string { return redacted }

// MarshalBinary fails.
func (ForeignKey) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// MarshalText returns a redaction; JSON, XML and YAML use it too.
func (ForeignKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a redaction.
func (ForeignKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// ImportKey makes a key of another system valid here: its text stays the same,
// everything else is as if it had been issued here. Prefix and IdempotencyKey
// of spec must be empty.
//
// A key that was imported already is ErrConflict, in another form too as far as
// that can be told (of a Hash without Locator nobody knows the locator), and for
// good: also when it was revoked or has expired, and its record was purged. An
// import that failed or was cut off can be called again; until one has finished,
// the key is not accepted. What an unfinished one left for another subject, or what
// somebody has revoked or disabled of it, is ErrConflict as well.
func (m *Manager) ImportKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*Key, error) {
	k, err := m.importKey(ctx, spec, foreign)
	if err != nil {
		return nil, fmt.Errorf("fob: import key: %w", err)
	}
	m.observe(Event{Type: EventImported, ID: k.id, Subject: k.subject})
	return k, nil
}

func (m *Manager) importKey(ctx context.Context, spec KeySpec, foreign ForeignKey) (*Key, error) {
	if m.closed.Load() {
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
	k.prefix, k.foreign = "", true
	if err := m.checkForeign(foreign); err != nil {
		return nil, err
	}
	aliases := m.aliasesOf(foreign)
	k.alias = aliases[0]
	if k.epoch, _, err = m.readEpoch(ctx, k.subjectRef); err != nil {
		return nil, storeError("read", err)
	}
	for _, other := range aliases[1:] {
		if led, err := m.readAlias(ctx, other); err == nil && !led.pending {
			return nil, fmt.Errorf("%w: imported in another form", ErrConflict)
		} else if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	// The sequence, each prefix of which is safe to stop after:
	//  1. the alias names the key-to-be. It is pending: Verify does not follow it.
	//  2. the key is written.
	//  3. the alias is no longer pending. From now on the key was accepted, perhaps;
	//     so if it is ever gone, it was purged, and is not made anew.
	// Every attempt writes the alias in step 1, and what step 2 may overwrite was read
	// before; so one that gets through step 3 knows that the key is as it wrote it.
	alias, cond, err := m.placeOfImport(ctx, k, now)
	if err != nil {
		return nil, err
	}
	version, err := m.replace(ctx, alias.record(), alias.cond)
	if err != nil {
		return nil, err
	}
	switch {
	case foreign.Secret != "":
		m.digest(k, foreignSecret(k.id, foreign.Secret))
	case foreign.Hash != "":
		k.legacy = foreign.Hash
	default:
		k.legacy = ownDigest + hex.EncodeToString(foreign.Digest)
	}
	if k.version, err = m.replace(ctx, encodeKey(k, m.purgeAt(k)), cond); err != nil {
		return nil, err
	}
	alias.pending = false
	if _, err := m.replace(ctx, alias.record(), backend.IfVersion(version)); err != nil {
		return nil, err
	}
	return k, nil
}

// placeOfImport gives k its ID, and returns its alias, to be written first, and the
// condition under which the key is: the place of what an unfinished import of the
// same key left, if there is such a thing.
func (m *Manager) placeOfImport(ctx context.Context, k *Key, now time.Time) (*alias, backend.Cond, error) {
	left, err := m.readAlias(ctx, k.alias)
	switch {
	case errors.Is(err, ErrNotFound):
		k.id = ID(keytext.NewID(now))
		fresh := backend.Record{ID: k.alias, Kind: recordAlias, Owner: owner(k.subjectKind, k.subject), Created: k.issuedAt}
		return &alias{target: k.id, pending: true, rec: fresh, cond: backend.IfAbsent()}, backend.IfAbsent(), nil
	case err != nil:
		return nil, backend.Cond{}, err
	case !left.pending:
		return nil, backend.Cond{}, fmt.Errorf("%w: imported already", ErrConflict)
	}
	k.id = left.target
	old, err := m.readKey(ctx, k.id)
	switch {
	case errors.Is(err, ErrNotFound):
		return left, backend.IfAbsent(), nil
	case err != nil:
		return nil, backend.Cond{}, err
	case old.status != StatusActive || old.subjectRef != k.subjectRef:
		return nil, backend.Cond{}, fmt.Errorf("%w: an import that did not finish left key %s", ErrConflict, k.id)
	}
	k.issuedAt = old.issuedAt // immutable
	return left, backend.IfVersion(old.version), nil
}

// ownDigest marks a legacy hash that Config.Foreign.Digest can compute.
const ownDigest = "own:"

// foreignSecret is what the native digest of an imported key is made over. The
// first byte is no version of the native text, so the two can never be equal.
func foreignSecret(id ID, presented string) []byte {
	return append(append([]byte{0}, id[:]...), presented...)
}

func (m *Manager) tooWide(h legacyhash.Hash) error {
	return fmt.Errorf("%w: a hash of %d lanes, and Config.Foreign.SlowChecks is %d", ErrInvalid, h.Lanes(), m.cfg.Foreign.SlowChecks)
}

// checkForeign checks what is imported.
func (m *Manager) checkForeign(f ForeignKey) error {
	given := 0
	for _, set := range []bool{f.Secret != "", f.Hash != "", f.Digest != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return fmt.Errorf("%w: want one of Secret, Hash and Digest", ErrInvalid)
	}
	if err := checkText("locator", f.Locator, 0, maxSubject); err != nil {
		return err
	}
	if f.Locator != "" && m.cfg.Foreign.Locate == nil {
		return fmt.Errorf("%w: a Locator without Config.Foreign.Locate", ErrInvalid)
	}
	switch {
	case f.Secret != "":
		return m.checkForeignSecret(f)
	case f.Hash != "":
		h, err := legacyhash.Parse(f.Hash)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if _, plain := h.SHA256(); !plain && f.Locator == "" {
			return fmt.Errorf("%w: a salted hash needs a Locator", ErrInvalid)
		}
		if h.Lanes() > m.cfg.Foreign.SlowChecks {
			return m.tooWide(h)
		}
	case m.cfg.Foreign.Digest == nil || len(f.Digest) < 16 || len(f.Digest) > 64:
		return fmt.Errorf("%w: want Config.Foreign.Digest, and a Digest of 16 to 64 bytes", ErrInvalid)
	}
	return nil
}

func (m *Manager) checkForeignSecret(f ForeignKey) error {
	if !m.foreignText(f.Secret) {
		return fmt.Errorf("%w: the key is not %d to %d visible ASCII characters", ErrInvalid, minForeign, m.cfg.Foreign.MaxLength)
	}
	if prefix, problem := keytext.Split(f.Secret); problem == keytext.OK && m.known(prefix) {
		return fmt.Errorf("%w: the key has the native form", ErrInvalid)
	}
	if m.tokens != nil && isToken(f.Secret) {
		return fmt.Errorf("%w: the key begins as a token does, and would be taken for one", ErrInvalid)
	}
	if f.Locator != "" {
		if found, ok := m.cfg.Foreign.Locate(f.Secret); !ok || found != f.Locator {
			return fmt.Errorf("%w: Config.Foreign.Locate does not find this Locator in the key", ErrInvalid)
		}
	}
	return nil
}

// aliasesOf returns the records by which a key that was checked may have been
// imported, as far as they can be told from what is known of it: first the one by
// which it is to be found now.
func (m *Manager) aliasesOf(f ForeignKey) []recordID {
	var all []recordID
	if f.Locator != "" {
		all = append(all, aliasOfLocator(f.Locator))
	}
	switch {
	case f.Secret != "":
		sum := sha256.Sum256([]byte(f.Secret))
		all = append(all, aliasOfSum(sum[:]))
		possible, _ := m.aliasesOfText(f.Secret, sum[:])
		for _, alias := range possible {
			if !slices.Contains(all, alias) {
				all = append(all, alias)
			}
		}
	case f.Hash != "":
		if h, err := legacyhash.Parse(f.Hash); err == nil {
			if sum, plain := h.SHA256(); plain {
				all = append(all, aliasOfSum(sum[:]))
			}
		}
	default:
		all = append(all, aliasOfDigest(f.Digest))
	}
	return all
}

// aliasesOfText returns every record by which a presented text may be found, and
// its digest of the other system, if there is one. sum is its SHA-256.
func (m *Manager) aliasesOfText(presented string, sum []byte) (aliases []recordID, own []byte) {
	if locate := m.cfg.Foreign.Locate; locate != nil {
		if locator, ok := locate(strings.Clone(presented)); ok && locator != "" {
			aliases = append(aliases, aliasOfLocator(locator))
		}
	}
	aliases = append(aliases, aliasOfSum(sum))
	if digest := m.cfg.Foreign.Digest; digest != nil {
		if own = digest(strings.Clone(presented)); len(own) > 0 {
			aliases = append(aliases, aliasOfDigest(own))
		}
	}
	return aliases, own
}

func aliasOfLocator(locator string) recordID { return namedRecord(recordAlias, "locator", locator) }
func aliasOfSum(sum []byte) recordID         { return namedRecord(recordAlias, "sha256", string(sum)) }
func aliasOfDigest(d []byte) recordID        { return namedRecord(recordAlias, "digest", string(d)) }

// alias leads from the text of an imported key to its record.
type alias struct {
	target  ID
	pending bool // the import has not finished
	rec     backend.Record
	cond    backend.Cond // that it is still as it was read
}

func (a *alias) record() backend.Record {
	rec := a.rec
	w := newBody()
	w.id(fieldTarget, a.target)
	if a.pending {
		w.text(fieldPending, "\x01")
	}
	w.seal(&rec)
	return rec
}

func (m *Manager) readAlias(ctx context.Context, ref recordID) (*alias, error) {
	rec, err := m.store.Get(ctx, ref)
	if err != nil {
		return nil, storeError("read", err)
	}
	r, err := openBody(&rec, recordAlias)
	if err != nil {
		return nil, err
	}
	a := &alias{rec: rec, cond: backend.IfVersion(rec.Version)}
	for {
		field, v, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case fieldTarget:
			a.target = r.id(v)
		case fieldPending:
			a.pending = true
			r.bad = r.bad || v != "\x01"
		default:
			r.bad = true
		}
	}
	if r.bad || a.target.IsZero() {
		return nil, corrupt(&rec, "fields")
	}
	return a, nil
}

const minForeign = 8

// foreignText is the whole grammar of foreign keys: visible ASCII, bounded.
func (m *Manager) foreignText(presented string) bool {
	if len(presented) < minForeign || len(presented) > m.cfg.Foreign.MaxLength {
		return false
	}
	for i := range len(presented) {
		if c := presented[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// known reports whether prefix is any of ours, of this environment or another.
func (m *Manager) known(prefix string) bool {
	for i := range m.prefixes {
		if m.prefixes[i].text == prefix {
			return true
		}
	}
	return false
}

// verifyForeign is Verify for text that is no native key.
func (m *Manager) verifyForeign(ctx context.Context, presented string, how demand) (Credential, error) {
	if !m.foreignText(presented) {
		return nil, ErrMalformed
	}
	now := m.moment()
	seen, at := seenText([]byte(presented))
	e, ok := m.answers.keys.Get(at, now.mono)
	ok = ok && e.form == foreignForm && e.seen.Equal(seen)
	if ok && how == cached && m.believed(atomic.LoadInt64(&e.asOf), now) {
		return m.hit(e, now)
	}
	q := query{how: how, now: now, form: foreignForm, presented: presented, seen: seen, at: at}
	if ok {
		q.oldKey = e
	}
	return m.findOut(ctx, &q)
}

// loadForeign looks for the record of an imported key by everything that it may be
// found by, and remembers the answer.
func (m *Manager) loadForeign(ctx context.Context, q *query) found {
	// Before any store is asked: an entry put below depends on what is read after.
	ticket, absent := m.answers.keys.Begin(), m.answers.absent.Begin()
	aliases, own := m.aliasesOfText(q.presented, q.seen.sum[:])
	refs := make([]cache.Ref, 0, cache.MaxRefs)
	for _, ref := range aliases {
		refs = append(refs, cache.Ref(ref))
		led, err := m.readAlias(ctx, ref)
		if errors.Is(err, ErrNotFound) || err == nil && led.pending {
			continue
		}
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		refs = append(refs, cache.Ref(led.target))
		rec, err := m.store.Get(ctx, backend.ID(led.target))
		if errors.Is(err, backend.ErrNotFound) {
			continue // purged
		}
		if err != nil {
			return found{err: checkError(err)}
		}
		k, err := decodeKey(&rec)
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		matches, err := m.matchesForeign(ctx, k, q.presented, own)
		if err != nil {
			return found{err: fmt.Errorf("fob: verify: %w", err)}
		}
		if !matches || !k.foreign || k.alias != ref {
			continue
		}
		return m.remember(ctx, q, ticket, k)
	}
	return m.refuse(q, absent, absence{seen: q.seen}, refs...)
}

// matchesForeign compares a presented foreign key with what the record holds. A
// slow hash waits for its turn, or fails with ErrBusy.
func (m *Manager) matchesForeign(ctx context.Context, k *Key, presented string, own []byte) (bool, error) {
	if k.legacy == "" {
		secret := foreignSecret(k.id, presented)
		digest := digestOf(secret)
		if k.pepper != "" {
			pepper, ok := m.peppers[k.pepper]
			if !ok {
				return false, fmt.Errorf("%w: %q", ErrPepper, k.pepper)
			}
			digest = pepperedDigest(pepper, secret)
		}
		return digest.Equal(k.digest), nil
	}
	if text, ok := strings.CutPrefix(k.legacy, ownDigest); ok {
		want, err := hex.DecodeString(text)
		if err != nil || m.cfg.Foreign.Digest == nil {
			return false, fmt.Errorf("%w: imported digest, or no Config.Foreign.Digest", ErrCorrupt)
		}
		return len(own) > 0 && digestOf(want).Equal(digestOf(own)), nil
	}
	h, err := legacyhash.Parse(k.legacy)
	if err != nil {
		return false, fmt.Errorf("%w: imported hash", ErrCorrupt)
	}
	ok, err := m.limiter.Verify(ctx, k.id, h, presented)
	switch {
	case errors.Is(err, legacyhash.ErrBusy):
		return false, ErrBusy
	case errors.Is(err, legacyhash.ErrLanes):
		return false, m.tooWide(h)
	}
	return ok, err
}
