// Package guard turns panics of code that an application brings along, such as its store,
// into errors. In the goroutine of a caller such a panic may go up to the caller, like any
// other panic. In a goroutine of the library it would end the process. The package also
// finds arguments that are nil behind an interface (missing.go). It does not know what the
// code does.
package guard

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/fobkit/fob/internal/errs"
)

// Run calls run, and turns a panic of it into an error that wraps errs.ErrPanicked. The
// error quotes the value of the panic, unless the value contains a part of secret; "" is no
// secret.
func Run(secret string, run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %s", errs.ErrPanicked, panicText(v, secret))
		}
	}()
	return run()
}

// maxPanicText is how many bytes of a panic's value are quoted at most. minLeak is how many
// bytes of a secret must be in a value for the value not to be quoted.
const (
	maxPanicText = 256
	minLeak      = 6
)

// panicText returns the text of a panic's value if it has one without any part of the
// secret, and otherwise the type of the value.
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
