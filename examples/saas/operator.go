package main

import (
	"fmt"
	"net/http"

	"github.com/fobkit/fob"
)

// tenantOf is the tenant that an operator's request is about.
func tenantOf(r *http.Request) fob.Account { return fob.Account(r.PathValue("tenant")) }

func userOf(r *http.Request) fob.Subject { return fob.User(r.PathValue("user")).In(tenantOf(r)) }

func (a *app) putUser(r *http.Request) (any, error) {
	in, err := read[struct{ Role, Password string }](r)
	if err != nil {
		return nil, err
	}
	if _, ok := roles[in.Role]; !ok {
		return nil, fmt.Errorf("%w: no role %q", fob.ErrInvalid, in.Role)
	}
	return nil, a.users.put(userOf(r), in.Role, in.Password)
}

// removeUser first keeps the user from logging in, and then ends what the user has. Keys
// of service accounts that the user has made stay.
func (a *app) removeUser(r *http.Request) (any, error) {
	if err := a.users.remove(userOf(r)); err != nil {
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
