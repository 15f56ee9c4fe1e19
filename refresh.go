package fob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/keytext"
)

// refreshPrefix starts a refresh secret: the text form of keys, with a prefix that
// no key can have.
const refreshPrefix = "fobrefresh"

// oldSecrets is how many used secrets a family remembers, to tell a stolen one
// from a text that was never issued. Anybody who knows a family's ID can make up
// the latter; it must not end the family.
const oldSecrets = 128

// oldLen is how much of the digest of a used secret is kept.
const oldLen = 8

// family is what Refresh continues: one chain of single-use secrets. All of it is
// one record, replaced by compare-and-swap, so that of any number of concurrent
// refreshes one makes the successor, and a crash leaves the chain as it was
// before or as it is after, never two of it.
type family struct {
	id      ID
	spec    *Token // what each access token is to be; its times are those of the first
	version uint64

	begun, ends, idleUntil int64 // Unix milliseconds
	current                Digest
	used                   string // digests of used secrets, oldLen bytes each, the last one last
	ttl                    int64  // of an access token, milliseconds

	answer      string // what the last used secret was answered with, sealed under it
	answerUntil int64
	ended       bool
	reason      RevokeReason
}

func familyRecord(id ID) recordID { return namedRecord(recordFamily, string(id[:])) }

// beginFamily issues a token with a refresh secret.
func (m *Manager) beginFamily(ctx context.Context, t *Token, now time.Time) (Issued, error) {
	t.family = ID(keytext.NewID(now))
	issued, err := m.sealToken(ctx, t, now)
	if err != nil {
		return Issued{}, err
	}
	secret := drawRefresh(t.family)
	f := &family{
		id: t.family, spec: issued.Token,
		begun: millis(now), ends: millis(now.Add(m.cfg.Tokens.RefreshTTL)), idleUntil: millis(now.Add(m.cfg.Tokens.RefreshIdle)),
		current: refreshDigest(secret), ttl: t.expiresAt - t.issuedAt,
	}
	rec, err := m.encodeFamily(f)
	if err != nil {
		return Issued{}, err
	}
	if _, err := m.create(ctx, rec); err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	return f.issued(issued, secret), nil
}

func (f *family) issued(i Issued, secret string) Issued {
	i.Refresh, i.RefreshExpiresAt = newSecret(secret), instant(min(f.ends, f.idleUntil))
	return i
}

func drawRefresh(id ID) string { return keytext.Format(refreshPrefix, id, keytext.NewSecret()) }

func refreshDigest(text string) Digest { return digestOf([]byte(text)) }

// Refresh exchanges a refresh secret for a new access token and the next refresh
// secret (RFC 6749 §6, with rotation as RFC 9700 §4.14.2 asks for it). A secret is
// good for one use. Presented again within TokenConfig.RefreshGrace it gets the
// same answer, sealed under itself, for a client that lost the first one;
// presented later it is taken for stolen: the family is revoked, with every access
// token of it, and the answer is ErrReplayed.
//
// Errors are in the two classes of Verify. A family that is over is ErrExpired,
// one that was revoked ErrRevoked; what its key or subject lost, the refreshed
// token cannot have.
func (m *Manager) Refresh(ctx context.Context, presented string) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	prefix, problem := keytext.Split(presented)
	if problem == keytext.OK && prefix != refreshPrefix {
		problem = keytext.Prefix
	}
	if problem == keytext.OK {
		problem = keytext.Check(presented)
	}
	if problem != keytext.OK {
		return Issued{}, malformed(problem)
	}
	block := keytext.Block(presented)
	id, digest := ID(block[1:1+keytext.IDLen]), refreshDigest(presented)
	var issued Issued
	err := retry(ctx, func(bool) (err error) {
		issued, err = m.refresh(ctx, id, presented, digest)
		return raced(err)
	})
	if err != nil {
		return Issued{}, err
	}
	return issued, nil
}

func (m *Manager) refresh(ctx context.Context, id ID, presented string, digest Digest) (Issued, error) {
	rec, err := m.store.Get(ctx, familyRecord(id))
	if err != nil {
		return Issued{}, checkError(err)
	}
	f, err := m.decodeFamily(&rec)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	now := m.now()
	switch {
	case f.current.Equal(digest):
		return m.advance(ctx, f, &rec, presented, now)
	case !f.wasUsed(digest):
		return Issued{}, ErrUnknown
	case f.ended:
		return Issued{}, m.familyEnded(ctx, id)
	}
	if f.answer != "" && f.lastUsed(digest) && millis(now) < f.answerUntil {
		if err := m.familyRefused(ctx, f, now); err != nil {
			return Issued{}, err
		}
		return m.answerAgain(ctx, f, presented)
	}
	// Whoever presents this is not the one who has the next secret, or lost it.
	const replayed RevokeReason = "refresh secret replayed"
	_, err = m.endFamily(ctx, id, replayed)
	m.noteRevoked(recentRevocation{rev: Revocation{ID: id, Reason: replayed}, token: true}, err)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	return Issued{}, ErrReplayed
}

// familyRefused reports why a family can no longer be refreshed.
func (m *Manager) familyRefused(ctx context.Context, f *family, now time.Time) error {
	ms := millis(now)
	switch {
	case f.ended:
		return m.familyEnded(ctx, f.id)
	case ms >= f.ends || ms >= f.idleUntil:
		return ErrExpired
	}
	// From the store, whatever the marks say: a refresh is rare and reaches far.
	for _, ref := range []recordID{markOf("family", f.id), m.issuerMark()} {
		found, err := m.readMark(ctx, ref)
		if err != nil {
			return checkError(err)
		}
		if f.begun < found.before {
			return ErrRevoked
		}
	}
	epoch, _, err := m.readEpoch(ctx, f.spec.subjectRef)
	if err != nil {
		return checkError(err)
	}
	if f.spec.epoch < epoch {
		return ErrRevoked
	}
	if f.spec.parent.IsZero() {
		return nil
	}
	k, err := m.readKey(ctx, f.spec.parent)
	if errors.Is(err, ErrNotFound) {
		return ErrUnknown
	}
	if err != nil {
		return err
	}
	if epoch, _, err = m.readEpoch(ctx, k.subjectRef); err != nil {
		return checkError(err)
	}
	if k.epoch < epoch {
		return ErrRevoked
	}
	if err := k.refusal(ms); err != nil {
		return err
	}
	// The key may have been narrowed since.
	if !f.spec.scopes.within(k.scopes) || !f.spec.grants.within(k.scopes, nil) {
		return ErrRevoked
	}
	if end := k.endsAt(); end != 0 {
		f.ends = min(f.ends, end)
	}
	return nil
}

// familyEnded says that a family was revoked, perhaps elsewhere: the mark that ends its
// access tokens is read, so that after this none of them is good here either.
func (m *Manager) familyEnded(ctx context.Context, id ID) error {
	if _, err := m.readMark(ctx, markOf("family", id)); err != nil {
		return checkError(err)
	}
	return ErrRevoked
}

// advance uses the current secret of a family.
func (m *Manager) advance(ctx context.Context, f *family, rec *backend.Record, presented string, now time.Time) (Issued, error) {
	if err := m.familyRefused(ctx, f, now); err != nil {
		return Issued{}, err
	}
	t := *f.spec
	t.issuedAt = now.Truncate(time.Second).UnixMilli()
	t.notBefore = t.issuedAt
	t.expiresAt = min(t.issuedAt+f.ttl, f.ends/1000*1000)
	if t.expiresAt <= t.issuedAt {
		return Issued{}, ErrExpired
	}
	issued, err := m.sealToken(ctx, &t, now)
	if err != nil {
		return Issued{}, err
	}
	next := drawRefresh(f.id)
	used := f.current
	f.used += string(used.sum[:oldLen])
	if extra := len(f.used) - oldSecrets*oldLen; extra > 0 {
		f.used = f.used[extra:]
	}
	f.current = refreshDigest(next)
	f.idleUntil = millis(now.Add(m.cfg.Tokens.RefreshIdle))
	f.answer, f.answerUntil = "", 0
	if m.cfg.Tokens.RefreshGrace > 0 {
		f.answerUntil = millis(now.Add(m.cfg.Tokens.RefreshGrace))
		if f.answer, err = sealRefresh(presented, f.id, next+"\n"+issued.Access.Reveal()); err != nil {
			return Issued{}, err
		}
	}
	updated, err := m.encodeFamily(f)
	if err != nil {
		return Issued{}, err
	}
	updated.Created = rec.Created
	if _, err := m.replace(ctx, updated, backend.IfVersion(f.version)); err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	return f.issued(issued, next), nil
}

// answerAgain repeats the answer to the secret that was used last.
func (m *Manager) answerAgain(ctx context.Context, f *family, presented string) (Issued, error) {
	text, err := openRefresh(presented, f.id, f.answer)
	if err != nil {
		return Issued{}, err
	}
	next, access, ok := strings.Cut(text, "\n")
	if !ok {
		return Issued{}, fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	t, err := m.reopen(ctx, access)
	if err != nil {
		return Issued{}, err
	}
	return f.issued(Issued{Access: newSecret(access), Token: t}, next), nil
}

func (f *family) wasUsed(d Digest) bool {
	for i := 0; i < len(f.used); i += oldLen {
		if f.used[i:i+oldLen] == string(d.sum[:oldLen]) { // digests of high-entropy secrets, of which a part is kept
			return true
		}
	}
	return false
}

func (f *family) lastUsed(d Digest) bool {
	return strings.HasSuffix(f.used, string(d.sum[:oldLen]))
}

// endFamily revokes a family: first the mark that ends its access tokens, then the
// chain itself. After a crash between the two the family is dead all the same,
// because Refresh looks at the mark as well.
//
// It had been revoked already only if both were there before: else the call that
// wrote the first did not come through, and has reported nothing.
func (m *Manager) endFamily(ctx context.Context, id ID, reason RevokeReason) (already bool, err error) {
	already = true
	err = retry(ctx, func(bool) error {
		rec, err := m.store.Get(ctx, familyRecord(id))
		if err != nil {
			return storeError("read", err)
		}
		f, err := m.decodeFamily(&rec)
		if err != nil {
			return err
		}
		now := m.now()
		// The mark lasts as long as the chain could: it alone may stand after a crash.
		end := max(m.markEnd(now), f.ends+time.Minute.Milliseconds())
		marked, err := m.putMark(ctx, markOf("family", id), forever, end, reason)
		if err != nil {
			return err
		}
		if already = already && marked; f.ended {
			return nil
		}
		f.ended, f.reason, f.answer, f.answerUntil = true, reason, "", 0
		updated, err := m.encodeFamily(f)
		if err != nil {
			return err
		}
		updated.Created = rec.Created
		if _, err = m.replace(ctx, updated, backend.IfVersion(f.version)); err != nil {
			return raced(err)
		}
		already = false
		return nil
	})
	return already && err == nil, err
}

// encodeFamily makes the record of a family. The claims of its tokens are kept as
// they are written in a token.
func (m *Manager) encodeFamily(f *family) (backend.Record, error) {
	payload, err := f.spec.payload()
	if err != nil {
		return backend.Record{}, err
	}
	purgeAt := f.ends
	if f.ended {
		purgeAt = min(purgeAt, m.markEnd(m.now()))
	}
	rec := backend.Record{
		ID: familyRecord(f.id), Kind: recordFamily, Owner: owner(f.spec.subjectKind, f.spec.subject),
		Parent: backend.ID(f.spec.parent), Created: f.begun, Expires: f.ends, PurgeAt: purgeAt + m.cfg.Retention.Milliseconds(),
	}
	w := newBody()
	w.text(fieldReason, string(f.reason))
	w.text(fieldDigest, string(f.current.sum[:]))
	w.number(fieldLifetime, uint64(f.ttl))
	w.id(fieldTarget, f.id)
	w.text(fieldSealed, f.answer)
	w.number(fieldIdleUntil, uint64(f.idleUntil))
	w.number(fieldAnswerUntil, uint64(f.answerUntil))
	w.text(fieldUsed, f.used)
	w.text(fieldClaims, string(payload))
	if f.ended {
		w.text(fieldEnded, "\x01")
	}
	w.seal(&rec)
	return rec, nil
}

func (m *Manager) decodeFamily(rec *backend.Record) (*family, error) {
	r, err := openBody(rec, recordFamily)
	if err != nil {
		return nil, err
	}
	f := &family{version: rec.Version, begun: rec.Created, ends: rec.Expires}
	var payload string
	for {
		field, v, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case fieldReason:
			f.reason = RevokeReason(v)
		case fieldDigest:
			r.bad = r.bad || copy(f.current.sum[:], v) != len(v) || len(v) != len(f.current.sum)
		case fieldLifetime:
			f.ttl = r.millis(v)
		case fieldTarget:
			f.id = r.id(v)
		case fieldSealed:
			f.answer = v
		case fieldIdleUntil:
			f.idleUntil = r.millis(v)
		case fieldAnswerUntil:
			f.answerUntil = r.millis(v)
		case fieldUsed:
			f.used = v
			r.bad = r.bad || len(v)%oldLen != 0
		case fieldClaims:
			payload = v
		case fieldEnded:
			f.ended = true
			r.bad = r.bad || v != "\x01"
		default:
			r.bad = true
		}
	}
	if r.bad || f.ttl == 0 || f.idleUntil == 0 || f.current == (Digest{}) || familyRecord(f.id) != rec.ID {
		return nil, corrupt(rec, "fields")
	}
	if f.spec, err = decodeToken([]byte(payload), ""); err != nil || f.spec.family != f.id {
		return nil, corrupt(rec, "claims")
	}
	return f, nil
}

// sealRefresh encrypts an answer so that it takes the presented secret, of which
// the store has the digest only, to open it.
func sealRefresh(presented string, id ID, text string) (string, error) {
	aead, err := derivedCipher([]byte(presented), id[:], "fob refresh answer")
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, []byte(text), id[:])), nil
}

func openRefresh(presented string, id ID, sealed string) (string, error) {
	aead, err := derivedCipher([]byte(presented), id[:], "fob refresh answer")
	if err != nil {
		return "", err
	}
	text, err := aead.Open(nil, nil, []byte(sealed), id[:])
	if err != nil {
		return "", fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	return string(text), nil
}
