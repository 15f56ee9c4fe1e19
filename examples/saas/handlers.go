package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/fobkit/fob"
	"golang.org/x/crypto/bcrypt"
)

// orders stands for what the service is about: it knows the tenant from the credential, and
// never from the request.
func (a *app) orders(_ *http.Request, caller fob.Credential) (any, error) {
	return fmt.Sprintf("orders of %s", caller.Subject().Account), nil
}

// login begins a session. One answer stands for every reason why it does not.
func (a *app) login(r *http.Request) (any, error) {
	in, err := read[struct{ Tenant, Name, Password, Device string }](r)
	if err != nil {
		return nil, err
	}
	who := fob.User(in.Name).In(fob.Account(in.Tenant))
	user, ok := a.users.login(who, in.Password)
	if !ok {
		return nil, fob.ErrUnknown
	}
	issued, err := a.keys.IssueToken(r.Context(), fob.TokenSpec{Subject: who, Roles: []string{user.Role}, Refreshable: true, Label: in.Device})
	if err != nil {
		return nil, err
	}
	// A user who was removed meanwhile gets no session that the removal came too early for.
	if _, still := a.users.get(who); !still {
		_, failed := a.keys.Revoke(r.Context(), issued.Token.Session(), "login refused")
		return nil, errors.Join(fob.ErrUnknown, failed)
	}
	return shown(issued), nil
}

func (a *app) refresh(r *http.Request) (any, error) {
	in, err := read[struct{ Refresh string }](r)
	if err != nil {
		return nil, err
	}
	issued, err := a.keys.Refresh(r.Context(), in.Refresh)
	if err != nil {
		return nil, err
	}
	return shown(issued), nil
}

// shown is what a client gets, once.
func shown(issued fob.Issued) map[string]any {
	return map[string]any{"access": issued.Access.Reveal(), "refresh": issued.Refresh.Reveal(), "expires_at": issued.Token.ExpiresAt()}
}

// lookAgain is asked at each refresh: who has left is logged out, and who has another role
// now has the rights of that one that the session had. Further ones take a new login.
func (a *app) lookAgain(_ context.Context, r *fob.Renewal) error {
	user, ok := a.users.get(r.Session.Subject)
	if !ok {
		return fob.ErrRevoked
	}
	if !slices.Contains(r.Roles, user.Role) {
		r.Roles, r.Scopes = nil, roles[user.Role]
	}
	return nil
}

// sessions lists where the caller is logged in.
func (a *app) sessions(r *http.Request, caller fob.Credential) (any, error) {
	return a.keys.Sessions(r.Context(), fob.Query{
		Subject: caller.Subject(), Status: fob.StatusActive, Cursor: fob.Cursor(r.URL.Query().Get("cursor")),
	})
}

// logout ends the caller's session.
func (a *app) logout(r *http.Request, caller fob.Credential) (any, error) {
	token, ok := caller.(*fob.Token)
	if !ok {
		return nil, fmt.Errorf("%w: a key has no session", fob.ErrInvalid)
	}
	_, err := a.keys.Revoke(r.Context(), token.Session(), "logged out")
	return nil, err
}

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
	ours := key.Subject().Account == caller.Subject().Account && caller.Allows("keys:tenant")
	if !ours && key.Subject() != caller.Subject() {
		return nil, fob.ErrNotFound
	}
	_, err = a.keys.Revoke(r.Context(), id, "revoked by its tenant")
	return nil, err
}

// tenantOf and userOf are whom an operator's request is about.
func tenantOf(r *http.Request) fob.Account { return fob.Account(r.PathValue("tenant")) }
func userOf(r *http.Request) fob.Subject   { return fob.User(r.PathValue("user")).In(tenantOf(r)) }

func (a *app) putUser(r *http.Request) (any, error) {
	in, err := read[struct{ Role, Password string }](r)
	if _, ok := roles[in.Role]; err != nil || !ok || len(in.Password) < 8 || len(in.Password) > 72 {
		return nil, fmt.Errorf("%w: a user has a role, and a password of 8 to 72 bytes", fob.ErrInvalid)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(in.Password), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	return nil, a.users.put(userOf(r), &user{Role: in.Role, Hash: hash})
}

// removeUser first keeps the user from logging in, and then ends what the user has. Keys
// of service accounts that the user has made stay.
func (a *app) removeUser(r *http.Request) (any, error) {
	if err := a.users.put(userOf(r), nil); err != nil {
		return nil, err
	}
	_, err := a.keys.Revoke(r.Context(), userOf(r), "left")
	return nil, err
}

// suspend refuses all that a tenant has, until resume.
func (a *app) suspend(r *http.Request) (any, error) {
	return nil, a.keys.Disable(r.Context(), tenantOf(r), "suspended")
}

func (a *app) resume(r *http.Request) (any, error) {
	return nil, a.keys.Enable(r.Context(), tenantOf(r))
}

// revokeTenant ends all that a tenant has, and answers when that holds in every process.
func (a *app) revokeTenant(r *http.Request) (any, error) {
	receipt, err := a.keys.Revoke(r.Context(), tenantOf(r), "revoked by the operator")
	if err != nil {
		return nil, err
	}
	return map[string]bool{"unknown": receipt.Unknown}, receipt.Wait(r.Context())
}
