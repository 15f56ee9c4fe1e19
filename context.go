package fob

import "context"

type contextKey struct{}

// NewContext returns a context that carries a verified credential, as the
// middleware does for the handlers behind it.
func NewContext(ctx context.Context, cred Credential) context.Context {
	return context.WithValue(ctx, contextKey{}, cred)
}

// FromContext returns the credential that NewContext put in ctx, and whether
// there is one.
func FromContext(ctx context.Context) (Credential, bool) {
	cred, ok := ctx.Value(contextKey{}).(Credential)
	return cred, ok && cred != nil
}
