package main

import (
	"net/http"
	"time"

	"github.com/fobkit/fob"
)

// issueKey makes a key of the caller, or of a service account of the tenant. Within is what
// keeps the caller from giving a key more than the caller has, or to another tenant.
func (a *app) issueKey(r *http.Request, caller fob.Credential) (any, error) {
	in, err := read[struct {
		Name           string
		Scopes         fob.Scopes
		Grants         fob.Grants
		Days           uint16 // zero: for good
		ServiceAccount string `json:"service_account"`
	}](r)
	if err != nil {
		return nil, err
	}
	subject := caller.Subject()
	if in.ServiceAccount != "" {
		if !caller.Allows("keys:tenant") {
			return nil, fob.ErrScope
		}
		subject = fob.App(in.ServiceAccount).In(subject.Account)
	}
	secret, key, err := a.keys.IssueKey(r.Context(), fob.KeySpec{
		Subject: subject, Name: in.Name, Scopes: in.Scopes, Grants: in.Grants, TTL: time.Duration(in.Days) * 24 * time.Hour,
		Within: caller, Outlast: caller.Kind() == fob.KindToken, // a login ends soon, and what it made stays
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"secret": secret.Reveal(), "key": key}, nil
}

// listKeys lists the caller's keys by page; with ?all those of the tenant, for its admins.
func (a *app) listKeys(r *http.Request, caller fob.Credential) (any, error) {
	in := r.URL.Query()
	q := fob.Query{Subject: caller.Subject(), Order: fob.NewestFirst, WithUsage: true, Cursor: fob.Cursor(in.Get("cursor")), Limit: 50}
	if in.Has("all") {
		if !caller.Allows("keys:tenant") {
			return nil, fob.ErrScope
		}
		q.Subject, q.Account = fob.Subject{}, caller.Subject().Account
	}
	return a.keys.List(r.Context(), q)
}

// revokeKey ends a key of the caller, or for an admin any key of the tenant. For anybody
// else there is no such key.
func (a *app) revokeKey(r *http.Request, caller fob.Credential) (any, error) {
	id, err := fob.ParseID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	key, err := a.keys.Get(r.Context(), id)
	if err != nil {
		return nil, err
	}
	mine := key.Subject() == caller.Subject()
	ours := key.Subject().Account == caller.Subject().Account && caller.Allows("keys:tenant")
	if !mine && !ours {
		return nil, fob.ErrNotFound
	}
	_, err = a.keys.Revoke(r.Context(), id, "revoked by its tenant")
	return nil, err
}
