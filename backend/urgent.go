package backend

import "context"

type urgentKey struct{}

// Urgent returns a context for a Put that ends something: a revocation, a disabling,
// the mark or the epoch that ends what was issued before. Set it for no other Put.
//
// R18: a store that refuses writes (ErrUnavailable) before its space runs out, and so
// keeps some back, gives that to a Put with such a context, to Delete and to Purge,
// which make room, and to nothing else. A store that keeps nothing back ignores it.
func Urgent(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

// IsUrgent reports whether ctx is from Urgent. A store calls it in Put, in its
// caller's goroutine.
func IsUrgent(ctx context.Context) bool {
	urgent, _ := ctx.Value(urgentKey{}).(bool)
	return urgent
}
