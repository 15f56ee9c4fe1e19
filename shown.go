package fob

import (
	"encoding/json"
	"log/slog"
	"time"
)

// How values are shown: keys and tokens have no exported fields, and errors and durations
// have no form in JSON that says what they are.

// shownKey is a Key in JSON. Its metadata is not in it: that is for the service, and JSON
// may be on its way to a client.
type shownKey struct {
	ID          ID        `json:"id"`
	Kind        Kind      `json:"kind"`
	Subject     Subject   `json:"subject"`
	Name        string    `json:"name,omitempty"`
	Prefix      string    `json:"prefix,omitempty"`
	Imported    bool      `json:"imported,omitempty"`
	Status      Status    `json:"status"`
	Scopes      Scopes    `json:"scopes"`
	Roles       []string  `json:"roles,omitempty"`
	Grants      Grants    `json:"grants,omitempty"`
	Tags        []string  `json:"tags,omitempty"`
	IssuedAt    time.Time `json:"issued_at"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	Parent      ID        `json:"parent,omitzero"`
	Predecessor ID        `json:"predecessor,omitzero"`
	Successor   ID        `json:"successor,omitzero"`
	Usage       *Usage    `json:"usage,omitempty"`
}

// MarshalJSON writes what the key's methods return, but for Meta and the reason of a
// revocation, which are not for clients. The status is that of AsOf. The zero Key is null.
func (k Key) MarshalJSON() ([]byte, error) {
	if k.asOf == nil {
		return []byte("null"), nil
	}
	return json.Marshal(shownKey{
		ID: k.ID(), Kind: KindKey, Subject: k.Subject(), Name: k.Name(), Prefix: k.Prefix(), Imported: k.Imported(), Status: k.StatusAt(k.AsOf()),
		Scopes: k.Scopes(), Roles: k.Roles(), Grants: k.Grants(), Tags: k.Tags(),
		IssuedAt: k.IssuedAt(), NotBefore: k.NotBefore(), ExpiresAt: k.ExpiresAt(), RevokedAt: k.RevokedAt(),
		Parent: k.Parent(), Predecessor: k.Predecessor(), Successor: k.Successor(), Usage: k.usage,
	})
}

// LogValue returns the ID, the subject and the name.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", "key"), slog.String("id", k.ID().String()), slog.Any("subject", k.Subject()), slog.String("name", k.Name()))
}

// shownToken is a Token in JSON.
type shownToken struct {
	ID        ID        `json:"id"`
	Kind      Kind      `json:"kind"`
	Subject   Subject   `json:"subject"`
	Issuer    string    `json:"issuer"`
	Audience  string    `json:"audience"`
	Scopes    Scopes    `json:"scopes"`
	Roles     []string  `json:"roles,omitempty"`
	Grants    Grants    `json:"grants,omitempty"`
	IssuedAt  time.Time `json:"issued_at"`
	NotBefore time.Time `json:"not_before"`
	ExpiresAt time.Time `json:"expires_at"`
	Parent    ID        `json:"parent,omitzero"`
	Session   ID        `json:"session,omitzero"`
}

// MarshalJSON writes what the token's methods return, but for its custom claims. The zero
// Token is null.
func (t Token) MarshalJSON() ([]byte, error) {
	if t.asOf == nil {
		return []byte("null"), nil
	}
	return json.Marshal(shownToken{
		ID: t.ID(), Kind: KindToken, Subject: t.Subject(), Issuer: t.Issuer(), Audience: t.Audience(), Scopes: t.Scopes(), Roles: t.Roles(), Grants: t.Grants(),
		IssuedAt: t.IssuedAt(), NotBefore: t.NotBefore(), ExpiresAt: t.ExpiresAt(), Parent: t.Parent(), Session: t.Session(),
	})
}

// LogValue returns the ID and the subject.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", "token"), slog.String("id", t.ID().String()), slog.Any("subject", t.Subject()))
}

// textOf is the text of an error; "" for none.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// shownEvent is an Event in JSON, with the names that LogEvents writes.
type shownEvent struct {
	Type    EventType    `json:"type"`
	At      time.Time    `json:"at"`
	ID      ID           `json:"id,omitzero"`
	Other   ID           `json:"other,omitzero"`
	Subject Subject      `json:"subject,omitzero"`
	Account Account      `json:"account,omitempty"`
	Target  string       `json:"target,omitempty"`
	Epoch   uint64       `json:"epoch,omitempty"`
	Before  *Key         `json:"before,omitempty"`
	After   *Key         `json:"after,omitempty"`
	Token   *Token       `json:"token,omitempty"`
	Actor   *shownActor  `json:"actor,omitempty"`
	Reason  RevokeReason `json:"reason,omitempty"`
	Count   int          `json:"count,omitempty"`
	Idle    string       `json:"idle,omitempty"`
	Err     string       `json:"error,omitempty"`
}

// shownActor is an Actor in JSON.
type shownActor struct {
	ID      ID      `json:"id,omitzero"`
	Subject Subject `json:"subject,omitzero"`
	Name    string  `json:"name,omitempty"`
	Address string  `json:"address,omitempty"`
}

// MarshalJSON writes the ID and the subject of the credential, the name and the address.
func (a Actor) MarshalJSON() ([]byte, error) { return json.Marshal(a.shown()) }

func (a Actor) shown() shownActor {
	s := shownActor{Name: a.Name, Address: a.Address}
	if a.Credential != nil {
		s.ID, s.Subject = a.Credential.ID(), a.Credential.Subject()
	}
	return s
}

// MarshalJSON writes what is set, the error and the time without use as their text, and the
// target as its String.
func (e Event) MarshalJSON() ([]byte, error) {
	s := shownEvent{
		Type: e.Type, At: e.At, ID: e.ID, Other: e.Other, Subject: e.Subject, Account: e.Account, Epoch: e.Epoch,
		Before: e.Before, After: e.After, Token: e.Token, Reason: e.Reason, Count: e.Count, Err: textOf(e.Err),
	}
	if e.Target != nil {
		s.Target = e.Target.String()
	}
	if e.Actor != (Actor{}) {
		actor := e.Actor.shown()
		s.Actor = &actor
	}
	if e.Idle != 0 {
		s.Idle = e.Idle.String()
	}
	return json.Marshal(s)
}

// MarshalJSON writes the fields, errors and durations as their text.
func (h Health) MarshalJSON() ([]byte, error) {
	problems := make([]string, len(h.Problems))
	for i, err := range h.Problems {
		problems[i] = textOf(err)
	}
	return json.Marshal(struct {
		Following   bool      `json:"following"`
		FeedAge     string    `json:"feed_age"`
		Err         string    `json:"error,omitempty"`
		LostAt      time.Time `json:"lost_at,omitzero"`
		Failures    int       `json:"failures,omitempty"`
		CatchingUp  bool      `json:"catching_up"`
		Revocations int       `json:"revocations"`
		Staleness   string    `json:"staleness"`
		Skew        string    `json:"skew"`
		EventsLost  uint64    `json:"events_lost,omitempty"`
		EventErr    string    `json:"event_error,omitempty"`
		Problems    []string  `json:"problems"`
	}{
		h.Following, h.FeedAge.String(), textOf(h.Err), h.LostAt, h.Failures, h.CatchingUp, h.Revocations,
		h.Staleness.String(), h.Skew.String(), h.EventsLost, textOf(h.EventErr), problems,
	})
}
