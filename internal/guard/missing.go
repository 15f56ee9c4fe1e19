package guard

import (
	"reflect"

	"github.com/fobkit/fob/backend"
)

// Missing reports whether an argument that a caller must give is nil, or is an interface
// with a nil pointer or a nil function in it.
func Missing(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// MissingStore is Missing for a store, and for every store that it wraps.
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
