package claims

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// reader reads JSON (RFC 8259) from s. After a failure it reads no further.
type reader struct {
	s     string
	i     int
	claim string // the name of the claim that is being read
	err   error
}

// fail sets the error, if there is none yet. The error names the claim only if it is a
// known claim: any other name is text of the payload, which no message repeats.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		if slices.Contains(knownClaims, r.claim) {
			format, args = "%s: "+format, append([]any{r.claim}, args...)
		}
		r.err = refuse(format, args...)
	}
	r.i = len(r.s)
}

func (r *reader) space() {
	for r.i < len(r.s) && (r.s[r.i] == ' ' || r.s[r.i] == '\t' || r.s[r.i] == '\n' || r.s[r.i] == '\r') {
		r.i++
	}
}

// peek is the next byte, or 0 at the end.
func (r *reader) peek() byte {
	if r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

// take reports whether the next byte is c, and steps over it.
func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.i++
	return true
}

// members reads the members between open and end, which are separated by commas.
func (r *reader) members(depth int, open, end byte, member func()) {
	if depth > maxDepth {
		r.fail("nested too deep")
		return
	}
	if !r.take(open) {
		r.fail("want %q", open)
		return
	}
	r.space()
	if r.take(end) {
		return
	}
	for n := 1; r.err == nil; n++ {
		if n > maxMembers {
			r.fail("more than %d members", maxMembers)
			return
		}
		r.space()
		member()
		r.space()
		if r.take(end) {
			return
		}
		if !r.take(',') {
			r.fail("want a comma or %q", end)
		}
	}
}

// object reads an object whose names are unique.
func (r *reader) object(depth int, member func(name string)) {
	var room [16]string
	names := room[:0]
	r.members(depth, '{', '}', func() {
		name := r.string()
		if depth == 1 {
			r.claim = name
		}
		r.space()
		if !r.take(':') {
			r.fail("want a colon")
		}
		r.space()
		if slices.Contains(names, name) {
			r.fail("a name occurs twice")
		}
		if r.err == nil {
			names = append(names, name)
			member(name)
		}
		if depth == 1 {
			r.claim = ""
		}
	})
}

// string reads a string. It copies the string only if there are escapes in it.
func (r *reader) string() string {
	if !r.take('"') {
		r.fail("want a string")
		return ""
	}
	start := r.i
	for r.i < len(r.s) {
		switch c := r.s[r.i]; {
		case c == '"':
			text := r.s[start:r.i]
			r.i++
			if len(text) > maxString {
				r.fail("a string of more than %d bytes", maxString)
			}
			return text
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			r.fail("a control character in a string")
			return ""
		default:
			r.i++
		}
	}
	r.fail("a string without end")
	return ""
}

func (r *reader) escaped(start int) string {
	text := []byte(r.s[start:r.i])
	for r.i < len(r.s) && len(text) <= maxString {
		c := r.s[r.i]
		r.i++
		switch {
		case c == '"':
			return string(text)
		case c < ' ':
			r.fail("a control character in a string")
			return ""
		case c != '\\':
			text = append(text, c)
			continue
		}
		c = r.peek()
		r.i++
		switch c {
		case '"', '\\', '/':
			text = append(text, c)
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			text = utf8.AppendRune(text, r.unicode())
		default:
			r.fail("an unknown escape")
			return ""
		}
	}
	r.fail("a string without end, or of more than %d bytes", maxString)
	return ""
}

// unicode reads what follows \u. It reads a surrogate pair as one character (RFC 8259 §7).
func (r *reader) unicode() rune {
	c := r.hex4()
	if !utf16.IsSurrogate(c) {
		return c
	}
	if !r.take('\\') || !r.take('u') {
		r.fail("half a surrogate pair")
		return utf8.RuneError
	}
	both := utf16.DecodeRune(c, r.hex4())
	if both == utf8.RuneError {
		r.fail("half a surrogate pair")
	}
	return both
}

func (r *reader) hex4() rune {
	if r.i+4 > len(r.s) {
		r.fail("an escape is cut")
		return 0
	}
	digits := r.s[r.i : r.i+4]
	r.i += 4
	var n rune
	for i := range len(digits) {
		c := digits[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			r.fail("an escape that is not hexadecimal")
			return 0
		}
		n = n<<4 | rune(c)
	}
	return n
}

// number reads the text of a number (RFC 8259 §6).
func (r *reader) number() (text string, integer bool) {
	start := r.i
	digits := func() (n int) {
		for r.peek() >= '0' && r.peek() <= '9' {
			r.i++
			n++
		}
		return n
	}
	r.take('-')
	zero := r.peek() == '0'
	integer = true
	if n := digits(); n == 0 || zero && n > 1 {
		r.fail("not a value")
		return "", false
	}
	if r.take('.') {
		integer = false
		if digits() == 0 {
			r.fail("not a number")
		}
	}
	if r.take('e') || r.take('E') {
		integer = false
		if !r.take('+') {
			r.take('-')
		}
		if digits() == 0 {
			r.fail("not a number")
		}
	}
	if r.err != nil {
		return "", false
	}
	return r.s[start:r.i], integer
}

// value reads any value.
func (r *reader) value(depth int) any {
	if r.err != nil {
		return nil
	}
	switch r.peek() {
	case '"':
		return r.string()
	case '{':
		object := make(map[string]any)
		r.object(depth, func(name string) { object[name] = r.value(depth + 1) })
		return object
	case '[':
		array := []any{}
		r.members(depth, '[', ']', func() { array = append(array, r.value(depth+1)) })
		return array
	case 't', 'f', 'n':
		return r.literal()
	default:
		text, integer := r.number()
		if r.err != nil {
			return nil
		}
		if integer {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
				return n
			}
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(n, 0) {
			r.fail("a number out of range")
		}
		return n
	}
}

// literal reads one of the three names of RFC 8259 §3.
func (r *reader) literal() any {
	rest := r.s[r.i:]
	switch {
	case strings.HasPrefix(rest, "true"):
		r.i += len("true")
		return true
	case strings.HasPrefix(rest, "false"):
		r.i += len("false")
		return false
	case strings.HasPrefix(rest, "null"):
		r.i += len("null")
		return nil
	}
	r.fail("not a value")
	return nil
}
