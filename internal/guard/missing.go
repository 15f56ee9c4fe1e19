package guard

import (
	"reflect"

	"github.com/fobkit/fob/backend"
)

// Missing reports whether something that a caller must give is nil, or is a nil pointer
// or function behind an interface.
func Missing(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// MissingStore is Missing for a store, or for one that it wraps.
func MissingStore(s backend.Store) bool {
	for !Missing(s) {
		w, wraps := s.(backend.Wrapper)
		if !wraps {
			return false
		}
		inner := w.Unwrap()
		if inner == nil {
			return false // it wraps none, or shows none
		}
		s = inner
	}
	return true
}
