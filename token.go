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
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
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
// another order is refused, even if it is the same JSON. Other programs that issue
// tokens for this package have to write exactly this footer.
type Token struct {
	id           ID
	subject      Subject
	subjectRef   record.ID
	accountRef   record.ID // zero without an account
	epoch        uint64    // of the subject
	accountEpoch uint64
	issuerEpoch  uint64
	issuer       string
	audience     string
	own          Scopes // as they were sealed: without those of the roles
	roles        []string
	allowed
	bound  *allowed // what the key allows that it came from; nil if that is no less
	parent ID
	family ID
	keyID  string
	custom map[string]any

	issuedAt, notBefore, expiresAt int64 // Unix milliseconds; whole seconds where issued here

	asOf *atomic.Int64 // Unix milliseconds; moves while the token is in the cache
}

var _ Credential = (*Token)(nil)

func (t *Token) sealed() {}

// ID implements Credential: the claim jti.
func (t *Token) ID() ID { return t.id }

// Kind returns KindToken.
func (t *Token) Kind() Kind { return KindToken }

// Subject implements Credential: the claims sub, sub_type and account.
func (t *Token) Subject() Subject { return t.subject }

// Scopes implements Credential. For a Token from [Manager.Verify], Scopes, Allows, Grants
// and AllowsOn tell what the token allows now: see [Manager.ExchangeKey].
func (t *Token) Scopes() Scopes {
	if t.bound == nil {
		return slices.Clone(t.scopes)
	}
	return t.and(t.bound).scopes
}

// Allows implements Credential. It allocates nothing.
func (t *Token) Allows(scope Scope) bool {
	return t.scopes.Allow(scope) && (t.bound == nil || t.bound.scopes.Allow(scope))
}

// Grants implements Credential.
func (t *Token) Grants() Grants {
	if t.bound == nil {
		return grantsOf(t.grants)
	}
	return grantsOf(t.and(t.bound).grants)
}

// AllowsOn implements Credential. It allocates nothing.
func (t *Token) AllowsOn(action string, r Resource) bool {
	return t.allowsOn(action, r) && (t.bound == nil || t.bound.allowsOn(action, r))
}

// Roles returns a copy of the names of the token's roles. What they stand for now is in
// Scopes.
func (t *Token) Roles() []string { return slices.Clone(t.roles) }

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

// Session is the ID of the session that the token belongs to: the tokens that were refreshed
// from each other. It is zero for a token that cannot be refreshed. [Manager.Revoke] takes
// it, and ends the session with all its tokens.
func (t *Token) Session() ID { return t.family }

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
	// Subject is who the token is for.
	Subject Subject
	// Audience is whom the token is for: who is meant to accept it. "" means the
	// first of TokenConfig.Audiences.
	Audience string
	// Scopes and Grants are what the token allows. None allows nothing.
	Scopes Scopes
	Grants Grants
	// Roles are names in Config.Roles, as in KeySpec.
	Roles []string
	// TTL is how long it is accepted, in whole seconds (rounded down, at least
	// one). Zero means TokenConfig.TTL; more than TokenConfig.MaxTTL is ErrInvalid.
	TTL time.Duration
	// NotBefore is the first instant at which it is accepted, rounded up to whole seconds;
	// zero: at once. No token that is refreshed from it begins earlier.
	NotBefore time.Time
	// Refreshable asks for a refresh secret as well, for Manager.Refresh.
	Refreshable bool
	// Label is a text for people by which the session is listed, such as a device, up to
	// 128 bytes. Only a refreshable token has one.
	Label string
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
	if err := spec.Subject.check(); err != nil {
		return nil, err
	}
	if err := limits.CheckText("label", spec.Label, 0, maxName); err != nil {
		return nil, err
	}
	if spec.Label != "" && !spec.Refreshable {
		return nil, fmt.Errorf("%w: a label for a token without a session", ErrInvalid)
	}
	roles, err := m.cfg.Roles.named(spec.Roles)
	if err != nil {
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
		subject:   Subject{Account(strings.Clone(string(spec.Subject.Account))), spec.Subject.Kind, strings.Clone(spec.Subject.Name)},
		issuer:    cfg.Issuer,
		audience:  strings.Clone(audience),
		own:       scopes,
		roles:     roles,
		allowed:   allowed{m.cfg.Roles.resolve(scopes, roles), grants},
		custom:    maps.Clone(spec.Custom),
		issuedAt:  start,
		notBefore: start,
		expiresAt: start + ttl.Truncate(time.Second).Milliseconds(),
	}
	t.refer()
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

// refer sets the records of the subject and of its account.
func (t *Token) refer() {
	t.subjectRef, t.accountRef = record.SubjectID(t.subject.owner()), record.AccountID(string(t.subject.Account))
}

func validAudience(s string) bool { return limits.IsText(s, maxAudience) }

// payload writes the claims of a token.
func (t *Token) payload() ([]byte, error) {
	c := claims.Claims{
		Issuer: t.issuer, Subject: t.subject.Name, Audience: t.audience, ID: t.id.String(),
		IssuedAt: t.issuedAt, NotBefore: t.notBefore, ExpiresAt: t.expiresAt,
		Scope: t.own.String(), ClientID: t.parent.String(), SubjectType: t.subject.Kind.String(), Account: string(t.subject.Account), Roles: t.roles,
		Family: t.family.String(), Epoch: t.epoch, AccountEpoch: t.accountEpoch, IssuerEpoch: t.issuerEpoch, Use: useAccess, Custom: t.custom,
	}
	for _, g := range t.grants {
		c.Grants = append(c.Grants, claims.Grant(g))
	}
	b, err := claims.Append(nil, &c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return b, nil
}

// decodeToken reads the claims of a token that was opened with the key keyID. Claims that
// make no sense are refused: a key that we trust has sealed them.
func decodeToken(payload []byte, keyID string, known Roles) (*Token, error) {
	c, err := claims.Decode(payload)
	if err != nil {
		return nil, errs.ErrClaims
	}
	t := &Token{
		asOf:   newAsOf(c.IssuedAt),
		issuer: c.Issuer, subject: Subject{Account: Account(c.Account), Name: c.Subject}, audience: c.Audience, keyID: keyID, custom: c.Custom,
		roles: c.Roles, epoch: c.Epoch, accountEpoch: c.AccountEpoch, issuerEpoch: c.IssuerEpoch,
		issuedAt: c.IssuedAt, notBefore: c.NotBefore, expiresAt: c.ExpiresAt,
	}
	var bad [8]error
	t.id, bad[0] = ParseID(c.ID)
	bad[1] = t.parent.UnmarshalText([]byte(c.ClientID))
	bad[2] = t.family.UnmarshalText([]byte(c.Family))
	t.own, bad[3] = ParseScopes(c.Scope)
	var granted Grants
	for _, g := range c.Grants {
		t.grants = append(t.grants, rights.Grant(g))
		granted = append(granted, Grant(g))
	}
	bad[4] = granted.check()
	bad[5] = t.subject.Kind.UnmarshalText([]byte(c.SubjectType))
	bad[6] = t.subject.check()
	if len(t.roles) > 0 {
		bad[7] = limits.CheckList("roles", t.roles, maxRoles, maxRole)
	}
	if errors.Join(bad[:]...) != nil || c.Use != useAccess ||
		t.issuer == "" || t.audience == "" || c.IssuedAt == 0 || c.ExpiresAt == 0 {
		return nil, errs.ErrClaims
	}
	if c.NotBefore == 0 {
		t.notBefore = t.issuedAt
	}
	t.scopes = known.resolve(t.own, t.roles)
	t.refer()
	return t, nil
}

// grantsAs reports whether t, which was decoded from the claims of want, equals want in
// what it grants. It is the last check of a token before it is handed out.
func (t *Token) grantsAs(want *Token) bool {
	return t.id == want.id && t.subject == want.subject && t.epoch == want.epoch && t.accountEpoch == want.accountEpoch && t.issuerEpoch == want.issuerEpoch &&
		t.parent == want.parent && t.family == want.family && t.expiresAt == want.expiresAt && t.notBefore == want.notBefore &&
		slices.Equal(t.own, want.own) && slices.Equal(t.roles, want.roles) && (&allowed{grants: want.grants}).covers(&allowed{grants: t.grants})
}

// markOf is the record that ends a token or a family by its ID.
func markOf(what string, id ID) record.ID { return record.Named(record.Mark, what, string(id[:])) }

// marks appends the records of the marks that may revoke t.
func (t *Token) marks(ids []record.ID, issuer record.ID) []record.ID {
	ids = append(ids, t.subjectRef, issuer, markOf("token", t.id))
	if t.accountRef != (record.ID{}) {
		ids = append(ids, t.accountRef)
	}
	if !t.family.IsZero() {
		ids = append(ids, markOf("family", t.family))
	}
	return ids
}

// size is the memory that the token takes, in bytes.
func (t *Token) size() int {
	n := int(unsafe.Sizeof(*t)) + 8 + len(t.subject.Account) + len(t.subject.Name) + len(t.issuer) + len(t.audience) + len(t.keyID) + t.allowed.size()
	for _, role := range t.roles {
		n += 16 + len(role)
	}
	if t.bound != nil {
		n += int(unsafe.Sizeof(*t.bound)) // the rest is the key's
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
