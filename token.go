package fob

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fobkit/fob/internal/claims"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// Token is an access token as it was when it was verified or issued: who it is
// for, what it grants, until when. It holds no secret. It implements Credential,
// is immutable and safe for concurrent use. The zero Token is not a token;
// Tokens come from a Manager or a TokenVerifier.
//
// The text of a token is a PASETO of one of the four Protocols with the footer
//
//	{"kid":"<PASERK ID of its key>"}
//
// and no other one, byte for byte. A footer with a space, another member, an escape or
// another order is ErrTokenKey, even if it is the same JSON. Other programs that issue
// tokens for this package have to write exactly this footer.
type Token struct {
	id          ID
	subjectKind SubjectKind
	subject     string
	subjectRef  record.ID
	epoch       uint64 // of the subject
	issuerEpoch uint64
	issuer      string
	audience    string
	scopes      Scopes
	grants      Grants
	parent      ID
	family      ID
	keyID       string
	custom      map[string]any

	issuedAt, notBefore, expiresAt int64 // Unix milliseconds; whole seconds where issued here

	asOf *atomic.Int64 // Unix milliseconds; moves while the token is in the cache
}

var _ Credential = (*Token)(nil)

func (t *Token) sealed() {}

// ID implements Credential: the claim jti.
func (t *Token) ID() ID { return t.id }

// Kind returns KindToken.
func (t *Token) Kind() Kind { return KindToken }

// Subject implements Credential: the claim sub.
func (t *Token) Subject() string { return t.subject }

// SubjectKind implements Credential.
func (t *Token) SubjectKind() SubjectKind { return t.subjectKind }

// Scopes implements Credential. For a Token from [Manager.Verify], Scopes, Allows, Grants
// and AllowsOn tell what the token allows now: see [Manager.ExchangeKey].
func (t *Token) Scopes() Scopes { return slices.Clone(t.scopes) }

// Allows implements Credential. It allocates nothing.
func (t *Token) Allows(scope Scope) bool { return t.scopes.Allow(scope) }

// Grants returns a copy of the resource grants.
func (t *Token) Grants() Grants { return t.grants.clone() }

// AllowsOn implements Credential. It allocates nothing.
func (t *Token) AllowsOn(action string, r Resource) bool {
	return allowsOn(t.scopes, t.grants, action, r)
}

// IssuedAt implements Credential, in whole seconds where it was issued here.
func (t *Token) IssuedAt() time.Time { return clock.Instant(t.issuedAt) }

// NotBefore is the first instant at which the token is accepted (whole seconds, unless
// its key begins later).
func (t *Token) NotBefore() time.Time { return clock.Instant(t.notBefore) }

// ExpiresAt implements Credential, in whole seconds where it was issued here, unless
// its key ends sooner.
func (t *Token) ExpiresAt() time.Time { return clock.Instant(t.expiresAt) }

// AsOf implements Credential.
func (t *Token) AsOf() time.Time { return clock.Instant(t.asOf.Load()) }

// Issuer is who issued the token: the claim iss.
func (t *Token) Issuer() string { return t.issuer }

// Audience is whom the token is for: the claim aud.
func (t *Token) Audience() string { return t.audience }

// Parent is the ID of the key that the token was exchanged for; zero if none.
func (t *Token) Parent() ID { return t.parent }

// Family is the ID of the token's family: the tokens that were refreshed from each other.
// It is zero for a token that cannot be refreshed. [Manager.Revoke] takes it, and ends
// all tokens of the family.
func (t *Token) Family() ID { return t.family }

// KeyID is the PASERK ID of the key that sealed the token.
func (t *Token) KeyID() string { return t.keyID }

// Claim returns a custom claim: a string, bool, int64, float64, []any or
// map[string]any, which must not be changed. ok is false if there is none.
func (t *Token) Claim(name string) (value any, ok bool) {
	value, ok = t.custom[name]
	return value, ok
}

// again returns a copy of t with an AsOf of its own, to be checked anew. That check must
// not move the AsOf of t, because the copy may turn out to be revoked.
func (t *Token) again() *Token {
	next := *t
	next.asOf = newAsOf(t.asOf.Load())
	return &next
}

// StatusAt implements Credential. Verify refuses a token that was revoked, so the status
// of a Token depends on its times only.
func (t *Token) StatusAt(at time.Time) Status {
	switch ms := clock.Clamp(at); {
	case ms < t.notBefore:
		return StatusPending
	case ms >= t.expiresAt:
		return StatusExpired
	default:
		return StatusActive
	}
}

// String returns "token" and the ID, which are safe to log.
func (t Token) String() string { return "token " + t.id.String() }

// Format writes what String returns, for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// TokenSpec says what token to issue. Subject is required (for ExchangeKey and Refresh it
// is that of what is exchanged); every other field has a documented zero value.
type TokenSpec struct {
	// Subject is who the token is for, as in KeySpec.
	Subject string
	// SubjectKind is what the subject is; zero means SubjectUser, unlike for keys.
	SubjectKind SubjectKind
	// Audience is whom the token is for: who is meant to accept it. "" means the
	// first of TokenConfig.Audiences.
	Audience string
	// Scopes and Grants are what the token allows. None allows nothing.
	Scopes Scopes
	Grants Grants
	// TTL is how long it is accepted, in whole seconds (rounded down, at least
	// one). Zero means TokenConfig.TTL; more than TokenConfig.MaxTTL is ErrInvalid.
	TTL time.Duration
	// NotBefore is the first instant at which it is accepted, rounded up to whole seconds;
	// zero: at once. No token that is refreshed from it begins earlier.
	NotBefore time.Time
	// Refreshable asks for a refresh secret as well, for Manager.Refresh.
	Refreshable bool
	// Custom are further claims: strings, bools, integers, floats, and slices and
	// maps of them. The names that fob uses are refused.
	Custom map[string]any
}

// Issued is a token that was issued, with its secrets.
type Issued struct {
	Access  Secret // the token, for the header "Authorization: Bearer"
	Refresh Secret // for Manager.Refresh, once; empty unless TokenSpec.Refreshable
	Token   *Token
	// RefreshExpiresAt is when Refresh will no longer be accepted if it is not used
	// before. It depends on the expiry that the family's key has now. It is zero if
	// Refresh is empty.
	RefreshExpiresAt time.Time
}

const (
	maxAudience = 256
	useAccess   = "access"
)

// newToken checks a spec and makes a token of it that begins now.
func (m *Manager) newToken(spec TokenSpec, now time.Time) (*Token, error) {
	cfg := m.cfg.Tokens
	kind := spec.SubjectKind
	if kind == 0 {
		kind = SubjectUser
	}
	if err := checkSubject(spec.Subject, kind); err != nil {
		return nil, err
	}
	scopes, err := spec.Scopes.normal()
	if err != nil {
		return nil, err
	}
	grants, err := spec.Grants.normal()
	if err != nil {
		return nil, err
	}
	audience := spec.Audience
	if audience == "" {
		audience = cfg.Audiences[0]
	}
	if !validAudience(audience) {
		return nil, fmt.Errorf("%w: audience of %d bytes", ErrInvalid, len(audience))
	}
	ttl := spec.TTL
	if ttl == 0 {
		ttl = cfg.TTL
	}
	if ttl < time.Second || ttl > cfg.MaxTTL {
		return nil, fmt.Errorf("%w: TTL %v, want 1s to %v", ErrInvalid, ttl, cfg.MaxTTL)
	}
	start := now.Truncate(time.Second).UnixMilli()
	t := &Token{
		subjectKind: kind,
		subject:     strings.Clone(spec.Subject),
		subjectRef:  subjectRecord(kind, spec.Subject),
		issuer:      cfg.Issuer,
		audience:    strings.Clone(audience),
		scopes:      scopes,
		grants:      grants,
		custom:      maps.Clone(spec.Custom),
		issuedAt:    start,
		notBefore:   start,
		expiresAt:   start + ttl.Truncate(time.Second).Milliseconds(),
	}
	if err := limits.CheckTime("NotBefore", spec.NotBefore); err != nil {
		return nil, err
	}
	if !spec.NotBefore.IsZero() {
		t.notBefore = max(start, spec.NotBefore.Add(time.Second-1).Truncate(time.Second).UnixMilli())
		if t.notBefore >= t.expiresAt {
			return nil, fmt.Errorf("%w: token ends before it begins", ErrInvalid)
		}
	}
	return t, nil
}

func validAudience(s string) bool { return limits.IsText(s, maxAudience) }

// payload writes the claims of a token.
func (t *Token) payload() ([]byte, error) {
	c := claims.Claims{
		Issuer: t.issuer, Subject: t.subject, Audience: t.audience, ID: t.id.String(),
		IssuedAt: t.issuedAt, NotBefore: t.notBefore, ExpiresAt: t.expiresAt,
		Scope: t.scopes.String(), ClientID: t.parent.String(), SubjectType: t.subjectKind.String(),
		Family: t.family.String(), Epoch: t.epoch, IssuerEpoch: t.issuerEpoch, Use: useAccess, Custom: t.custom,
	}
	for _, g := range t.grants {
		c.Grants = append(c.Grants, claims.Grant{Type: g.Type, Actions: g.Actions, Identifiers: g.Identifiers})
	}
	b, err := claims.Append(nil, &c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return b, nil
}

// decodeToken reads the claims of a token that was opened with the key keyID. Claims that
// make no sense are ErrClaims: a key that we trust has sealed them.
func decodeToken(payload []byte, keyID string) (*Token, error) {
	c, err := claims.Decode(payload)
	if err != nil {
		return nil, ErrClaims
	}
	t := &Token{
		asOf:   newAsOf(c.IssuedAt),
		issuer: c.Issuer, subject: c.Subject, audience: c.Audience, keyID: keyID, custom: c.Custom,
		epoch: c.Epoch, issuerEpoch: c.IssuerEpoch,
		issuedAt: c.IssuedAt, notBefore: c.NotBefore, expiresAt: c.ExpiresAt,
	}
	switch c.SubjectType {
	case SubjectApplication.String():
		t.subjectKind = SubjectApplication
	case SubjectUser.String(), "":
		t.subjectKind = SubjectUser
	default:
		return nil, ErrClaims
	}
	var errs [6]error
	t.id, errs[0] = ParseID(c.ID)
	errs[1] = t.parent.UnmarshalText([]byte(c.ClientID))
	errs[2] = t.family.UnmarshalText([]byte(c.Family))
	t.scopes, errs[3] = ParseScopes(c.Scope)
	for _, g := range c.Grants {
		t.grants = append(t.grants, Grant(g))
	}
	errs[4] = t.grants.check()
	errs[5] = checkSubject(t.subject, t.subjectKind)
	if errors.Join(errs[:]...) != nil || c.Use != useAccess ||
		t.issuer == "" || t.audience == "" || c.IssuedAt == 0 || c.ExpiresAt == 0 {
		return nil, ErrClaims
	}
	if c.NotBefore == 0 {
		t.notBefore = t.issuedAt
	}
	t.subjectRef = subjectRecord(t.subjectKind, t.subject)
	return t, nil
}

// grantsAs reports whether t, which was decoded from the claims of want, equals want in
// what it grants. It is the last check of a token before it is handed out.
func (t *Token) grantsAs(want *Token) bool {
	return t.id == want.id && t.subject == want.subject && t.subjectKind == want.subjectKind && t.epoch == want.epoch && t.issuerEpoch == want.issuerEpoch &&
		t.parent == want.parent && t.family == want.family && t.expiresAt == want.expiresAt && t.notBefore == want.notBefore &&
		slices.Equal(t.scopes, want.scopes) && t.grants.within(nil, want.grants)
}

// markOf is the record that ends a token or a family by its ID.
func markOf(what string, id ID) record.ID { return record.Named(record.Mark, what, string(id[:])) }

// marks appends the records of the marks that may revoke t.
func (t *Token) marks(ids []record.ID, issuer record.ID) []record.ID {
	ids = append(ids, t.subjectRef, issuer, markOf("token", t.id))
	if !t.family.IsZero() {
		ids = append(ids, markOf("family", t.family))
	}
	return ids
}

// size is the memory that the token takes, in bytes.
func (t *Token) size() int {
	n := int(unsafe.Sizeof(*t)) + 8 + len(t.subject) + len(t.issuer) + len(t.audience) + len(t.keyID)
	for _, s := range t.scopes {
		n += 16 + len(s)
	}
	for i := range t.grants {
		g := &t.grants[i]
		n += int(unsafe.Sizeof(*g)) + len(g.Type)
		for _, list := range [][]string{g.Actions, g.Identifiers} {
			for _, s := range list {
				n += 16 + len(s)
			}
		}
	}
	return n + customSize(t.custom)
}

// customSize is about the memory that a decoded claim takes, in bytes.
func customSize(v any) int {
	n := 16
	switch v := v.(type) {
	case string:
		n += len(v)
	case []any:
		for _, e := range v {
			n += customSize(e)
		}
	case map[string]any:
		for name, e := range v {
			n += 48 + len(name) + customSize(e)
		}
	}
	return n
}
