package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/httpauth"
)

// scopeOperator is the right of whoever runs the service. No role has it, so that nobody of
// a tenant has it or can give it to a key.
const scopeOperator fob.Scope = "operator"

// roles are what users may do. A change here holds for everybody who has the role.
var roles = fob.Roles{
	"member": {"orders:read", "keys:own", "sessions:own"},
	"admin":  {"orders:*", "keys:*", "sessions:own"}, // keys:tenant is among them
}

// routes returns the API. A guard that cannot be built is an error, not an open route.
func (a *app) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle("POST /login", handler(a.login))
	mux.Handle("POST /refresh", handler(a.refresh))
	for _, route := range []struct {
		pattern string
		scope   fob.Scope
		handler handler
	}{
		{"GET /orders", "orders:read", ofTenant(a.orders)},
		{"GET /sessions", "sessions:own", ofTenant(a.sessions)},
		{"POST /logout", "sessions:own", ofTenant(a.logout)},
		{"GET /keys", "keys:own", ofTenant(a.listKeys)},
		{"POST /keys", "keys:own", ofTenant(a.issueKey)},
		{"DELETE /keys/{id}", "keys:own", ofTenant(a.revokeKey)},
		{"PUT /tenants/{tenant}/users/{user}", scopeOperator, a.putUser},
		{"DELETE /tenants/{tenant}/users/{user}", scopeOperator, a.removeUser},
		{"POST /tenants/{tenant}/suspend", scopeOperator, a.suspend},
		{"POST /tenants/{tenant}/resume", scopeOperator, a.resume},
		{"POST /tenants/{tenant}/revoke", scopeOperator, a.revokeTenant},
	} {
		guard, err := httpauth.Require(a.keys, httpauth.Options{Scopes: fob.Scopes{route.scope}, Realm: "acme", Observe: refused})
		if err != nil {
			return nil, err
		}
		mux.Handle(route.pattern, guard(route.handler))
	}
	// The events of a request say from where it came; who made it the guard finds out.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(fob.WithActor(r.Context(), fob.Actor{Address: r.RemoteAddr})))
	}), nil
}

// refused logs why a request was refused. The client learns no more than that it was.
func refused(r *http.Request, status int, reason error) {
	id, _ := fob.RejectedID(reason)
	slog.InfoContext(r.Context(), "refused", "status", status, "reason", fob.Reason(reason), "id", id)
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
