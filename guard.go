package fob

import (
	"context"
	"fmt"
	"reflect"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/retry"
)

// What the application brings along (a store, an Observer, a Clock, functions of
// Config.Foreign) may panic. In the goroutine of a caller that goes up to the caller, as
// the panic of anything else. In a goroutine of the Manager's own it would end the
// process: there it is an error, which is reported, and the goroutine goes on.

// background runs a loop of the Manager's own until Close, which waits for it. A loop
// that panics begins again.
func (m *Manager) background(name string, loop func(context.Context)) {
	m.done.Go(func() {
		var backoff retry.Backoff
		for {
			err := guard.Run("", func() error {
				loop(m.running)
				return nil
			})
			if err == nil || m.running.Err() != nil {
				return
			}
			m.report(Event{Type: EventUpkeepFailed, Err: fmt.Errorf("fob: %s: %w", name, err)})
			backoff.Pause(m.running)
		}
	})
}

// report is observe in a goroutine of the Manager's own. There is nobody left to be
// told that the Observer itself panics.
func (m *Manager) report(e Event) {
	_ = guard.Run("", func() error {
		m.observe(e)
		return nil
	})
}

// missing reports whether something that a caller must give is nil, or is a nil pointer
// or function behind an interface.
func missing(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// missingStore is missing for a store, or for one that it wraps.
func missingStore(s backend.Store) bool {
	for !missing(s) {
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
