package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/fobkit/fob"
)

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
	// A suspended tenant gets no session that begins to work one day; and a user who was
	// removed meanwhile none that the removal came too early for.
	_, err = a.keys.Verify(r.Context(), issued.Access.Reveal())
	if _, still := a.users.get(who); err == nil && !still {
		err = fob.ErrUnknown
	}
	if err != nil {
		_, failed := a.keys.Revoke(r.Context(), issued.Token.Session(), "login refused")
		return nil, errors.Join(err, failed)
	}
	return shown(issued), nil
}

// shown is what a client gets, once.
func shown(issued fob.Issued) map[string]any {
	return map[string]any{"access": issued.Access.Reveal(), "refresh": issued.Refresh.Reveal(), "expires_at": issued.Token.ExpiresAt()}
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
