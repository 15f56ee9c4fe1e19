package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/httpauth"
)

// scopeOperator is the right of whoever runs the service. No role has it, so that nobody of
// a tenant has it or can give it to a key.
const scopeOperator fob.Scope = "operator"

// roles are what users may do. A change here holds for everybody who has the role.
var roles = fob.Roles{
	"member": {"orders:read", "keys:own"},
	"admin":  {"orders:*", "keys:*"}, // keys:tenant is among them
}

// routes returns the API. A guard that cannot be built is an error, not an open route.
func (a *app) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle("POST /login", handler(a.login))
	mux.Handle("POST /refresh", handler(a.refresh))
	var failed error
	guarded := func(pattern string, scope fob.Scope, h handler) {
		opts := httpauth.Options{Realm: "acme", Observe: a.refused}
		if scope == "" {
			opts.AnyCredential = true
		} else {
			opts.Scopes = fob.Scopes{scope}
		}
		guard, err := httpauth.Require(a.keys, opts)
		if err != nil {
			failed = errors.Join(failed, err)
			return
		}
		mux.Handle(pattern, guard(h))
	}
	guarded("GET /orders", "orders:read", ofTenant(a.orders))
	guarded("GET /sessions", "", ofTenant(a.sessions))
	guarded("POST /logout", "", ofTenant(a.logout))
	guarded("GET /keys", "keys:own", ofTenant(a.listKeys))
	guarded("POST /keys", "keys:own", ofTenant(a.issueKey))
	guarded("DELETE /keys/{id}", "keys:own", ofTenant(a.revokeKey))
	guarded("PUT /tenants/{tenant}/users/{user}", scopeOperator, a.putUser)
	guarded("DELETE /tenants/{tenant}/users/{user}", scopeOperator, a.removeUser)
	guarded("POST /tenants/{tenant}/suspend", scopeOperator, a.suspend)
	guarded("POST /tenants/{tenant}/resume", scopeOperator, a.resume)
	guarded("POST /tenants/{tenant}/revoke", scopeOperator, a.revokeTenant)
	// The events of a request say from where it came; who made it the guard finds out.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(fob.WithActor(r.Context(), fob.Actor{Address: r.RemoteAddr})))
	}), failed
}

// refused logs why a request was refused. The client learns no more than that it was.
func (a *app) refused(r *http.Request, status int, reason error) {
	id, _ := fob.RejectedID(reason)
	a.log.InfoContext(r.Context(), "refused", "status", status, "reason", fob.Reason(reason), "id", id)
}

// handler answers with a value, or with an error.
type handler func(r *http.Request) (any, error)

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // answers hold secrets
	answer, err := h(r)
	if err != nil {
		status := statusOf(err)
		w.WriteHeader(status)
		answer = map[string]string{"error": http.StatusText(status)}
		if status == http.StatusBadRequest {
			answer = map[string]string{"error": err.Error()}
		}
	}
	_ = json.NewEncoder(w).Encode(answer) // a client that has gone gets nothing
}

// statusOf is the one place that tells what an error means to a client.
func statusOf(err error) int {
	switch {
	case errors.Is(err, fob.ErrRejected):
		return http.StatusUnauthorized
	case errors.Is(err, fob.ErrScope):
		return http.StatusForbidden
	case errors.Is(err, fob.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, fob.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, fob.ErrConflict):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable // not done, or perhaps only in part
}

// read reads the body of a request.
func read[T any](r *http.Request) (v T, err error) {
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("%w: %w", fob.ErrInvalid, err)
	}
	return v, nil
}

// ofTenant gives a handler the caller, who is of a tenant: a Query without an Account would
// list what all tenants have.
func ofTenant(h func(r *http.Request, caller fob.Credential) (any, error)) handler {
	return func(r *http.Request) (any, error) {
		caller, ok := fob.FromContext(r.Context())
		if !ok || caller.Subject().Account == "" {
			return nil, fob.ErrScope
		}
		return h(r, caller)
	}
}

// orders stands for what the service is about: it knows the tenant from the credential, and
// never from the request.
func (a *app) orders(_ *http.Request, caller fob.Credential) (any, error) {
	return fmt.Sprintf("orders of %s", caller.Subject().Account), nil
}
