// Package guard turns panics of what an application brings along into errors. In the
// goroutine of a caller such a panic goes up to the caller, as the panic of anything else.
// In a goroutine of the library's own it would end the process.
package guard

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/fobkit/fob/internal/errs"
)

// Run calls run, and turns its panic into an error. secret is what the panic's value
// must not be quoted with; "" for nothing.
func Run(secret string, run func() error) (err error) {
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
