package fob

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"strings"

	"github.com/fobkit/fob/internal/errs"

	"github.com/fobkit/fob/backend"
)

// What the application brings along (a store, an Observer, a Clock, functions of
// Config.Foreign) may panic. In the goroutine of a caller that goes up to the caller, as
// the panic of anything else. In a goroutine of the Manager's own it would end the
// process: there it is an error, which is reported, and the goroutine goes on.

// guarded calls run, and turns its panic into an error. secret is what the panic's value
// must not be quoted with; "" for nothing.
func guarded(secret string, run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %s", errs.ErrPanicked, panicText(v, secret))
		}
	}()
	return run()
}

// The most that is quoted of a panic's value, and the shortest part of a secret that
// nothing is quoted with, in bytes.
const (
	maxPanicText = 256
	minLeak      = 6
)

// panicText is what a panic said, where that is text without any part of a secret; else
// of what type it was.
func panicText(v any, secret string) (text string) {
	kind := fmt.Sprintf("a value of type %T", v)
	defer func() {
		if recover() != nil { // the value itself panics when it is asked
			text = kind
		}
	}()
	switch v := v.(type) {
	case runtime.Error:
		text = v.Error()
	case error:
		text = v.Error()
	case string:
		text = v
	default:
		return kind
	}
	for i := 0; i+minLeak <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+minLeak]) {
			return kind
		}
	}
	if len(text) > maxPanicText {
		text = strings.ToValidUTF8(text[:maxPanicText], "")
	}
	return text
}

// background runs a loop of the Manager's own until Close, which waits for it. A loop
// that panics begins again.
func (m *Manager) background(name string, loop func(context.Context)) {
	m.done.Go(func() {
		for pause := followPause; ; pause = min(2*pause, followPauseMax) {
			err := guarded("", func() error {
				loop(m.running)
				return nil
			})
			if err == nil || m.running.Err() != nil {
				return
			}
			m.report(Event{Type: EventUpkeepFailed, Err: fmt.Errorf("fob: %s: %w", name, err)})
			pauseFor(m.running, pause+jitter(pause/2))
		}
	})
}

// report is observe in a goroutine of the Manager's own. There is nobody left to be
// told that the Observer itself panics.
func (m *Manager) report(e Event) {
	_ = guarded("", func() error {
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
