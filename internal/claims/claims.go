// Package claims writes and reads the payload of a PASETO: one JSON object with registered
// claims (paseto-spec, "Registered Claims") and claims of OAuth (RFC 9068, RFC 9396). It
// does not know whether a token with these claims is valid: it compares no time and no
// issuer.
//
// Reading is strict where encoding/json is not: a name occurs once and in its exact case,
// times have the one form of RFC 3339, and a claim has the type that it must have. So two
// readers of one payload cannot read different things.
package claims

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Claims is the payload of a token. Times are Unix milliseconds. A claim that is not in the
// payload is "", nil or 0.
type Claims struct {
	Issuer, Subject, Audience, ID  string // iss, sub, aud, jti
	IssuedAt, NotBefore, ExpiresAt int64  // iat, nbf, exp

	Scope        string   // scope: separated by spaces (RFC 6749 §3.3)
	ClientID     string   // client_id
	SubjectType  string   // sub_type
	Account      string   // account: the account of the subject
	Family       string   // family
	Epoch        uint64   // epoch: the epoch of the subject
	AccountEpoch uint64   // account_epoch: the epoch of the account
	IssuerEpoch  uint64   // iss_epoch: the epoch of the issuer
	Use          string   // use
	Roles        []string // roles (RFC 9068 §2.2.3.1)
	Grants       []Grant  // authorization_details (RFC 9396 §2)

	// Custom is every other claim: string, bool, int64, float64, nil, []any and
	// map[string]any.
	Custom map[string]any
}

// Grant is one authorization detail.
type Grant struct {
	Type                 string
	Actions, Identifiers []string
}

// The bounds of a payload.
const (
	MaxSize    = 5 << 10 // bytes: sealed and encoded below 8 KiB, which is what HTTP headers hold
	maxDepth   = 8
	maxMembers = 64 // of one object or array
	maxString  = 4 << 10
	maxMillis  = 253402300799_999 // 9999-12-31T23:59:59.999Z, the last that RFC 3339 can say
)

// ErrClaims is wrapped by every error of this package. The texts name known claims, and
// never a value.
var ErrClaims = errors.New("claims: payload refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrClaims}, args...)...)
}

// knownClaims are the claims that have a field in Claims.
var knownClaims = []string{
	"iss", "sub", "aud", "jti", "iat", "nbf", "exp",
	"scope", "client_id", "sub_type", "account", "family", "epoch", "account_epoch", "iss_epoch", "use", "roles", "authorization_details",
}

// isReserved reports whether name is that of a known claim, or differs from one in case
// only: a reader that ignores case would take it for that claim.
func isReserved(name string) bool {
	return slices.ContainsFunc(knownClaims, func(k string) bool { return strings.EqualFold(k, name) })
}

// Append appends the payload of c to dst: the known claims in a fixed order, then the
// custom claims in the order of their names. It fails if Decode would refuse the payload.
func Append(dst []byte, c *Claims) ([]byte, error) {
	w := writer{b: append(dst, '{'), limit: len(dst) + MaxSize}
	for _, claim := range []struct{ name, value string }{
		{"iss", c.Issuer}, {"sub", c.Subject}, {"aud", c.Audience}, {"jti", c.ID},
	} {
		w.text(claim.name, claim.value)
	}
	for _, claim := range []struct {
		name string
		ms   int64
	}{{"iat", c.IssuedAt}, {"nbf", c.NotBefore}, {"exp", c.ExpiresAt}} {
		if claim.ms != 0 {
			if claim.ms < 0 || claim.ms > maxMillis {
				return nil, refuse("%s: out of range", claim.name)
			}
			w.text(claim.name, time.UnixMilli(claim.ms).UTC().Format(time.RFC3339Nano))
		}
	}
	for _, claim := range []struct{ name, value string }{
		{"scope", c.Scope}, {"client_id", c.ClientID}, {"sub_type", c.SubjectType}, {"account", c.Account}, {"family", c.Family},
	} {
		w.text(claim.name, claim.value)
	}
	for _, claim := range []struct {
		name string
		n    uint64
	}{{"epoch", c.Epoch}, {"account_epoch", c.AccountEpoch}, {"iss_epoch", c.IssuerEpoch}} {
		if claim.n > math.MaxInt64 {
			return nil, refuse("%s: out of range", claim.name)
		}
		if claim.n != 0 {
			w.name(claim.name)
			w.b = strconv.AppendUint(w.b, claim.n, 10)
		}
	}
	w.text("use", c.Use)
	w.list("roles", c.Roles)
	w.grants(c.Grants)
	for _, name := range slices.Sorted(maps.Keys(c.Custom)) {
		// Decode cannot find this out: if the known claim is absent, Decode takes this one
		// for it.
		if isReserved(name) {
			return nil, refuse("a custom claim has the name of a known one")
		}
		w.name(name)
		w.value(c.Custom[name], 1)
	}
	if w.err != nil {
		return nil, w.err
	}
	w.b = append(w.b, '}')
	if _, err := Decode(w.b[len(dst):]); err != nil {
		return nil, err
	}
	return w.b, nil
}

type writer struct {
	b     []byte
	limit int // of len(b): a longer payload is refused in the end
	comma bool
	err   error
}

func (w *writer) name(name string) {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
	w.string(name)
	w.b = append(w.b, ':')
}

func (w *writer) text(name, value string) {
	if value != "" {
		w.name(name)
		w.string(value)
	}
}

// list writes a claim that is a list of strings. It leaves an empty one out.
func (w *writer) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	for i, v := range values {
		w.b = append(w.b, "[,"[min(i, 1)])
		w.string(v)
	}
	w.b = append(w.b, ']')
}

func (w *writer) grants(grants []Grant) {
	if len(grants) == 0 {
		return
	}
	w.name("authorization_details")
	for i, g := range grants {
		w.b = append(w.b, "[,"[min(i, 1)])
		w.b = append(w.b, '{')
		w.comma = false
		w.name("type")
		w.string(g.Type)
		w.list("actions", g.Actions)
		w.list("identifiers", g.Identifiers)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
	w.comma = true
}

// value writes a custom claim. It has one of the types that Decode returns, or int, which
// is what programs write.
func (w *writer) value(v any, depth int) {
	// The recursion ends at the first failure, because a map that contains itself never
	// ends.
	switch {
	case w.err != nil:
		return
	case depth > maxDepth:
		w.err = refuse("nested too deep")
		return
	case len(w.b) > w.limit:
		w.err = refuse("more than %d bytes", MaxSize)
		return
	}
	switch v := v.(type) {
	case nil:
		w.b = append(w.b, "null"...)
	case string:
		w.string(v)
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int:
		w.b = strconv.AppendInt(w.b, int64(v), 10)
	case int64:
		w.b = strconv.AppendInt(w.b, v, 10)
	case float64:
		w.float(v)
	case []any:
		w.b = append(w.b, '[')
		for i, one := range v {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.value(one, depth+1)
		}
		w.b = append(w.b, ']')
	case map[string]any:
		w.b = append(w.b, '{')
		w.comma = false
		for _, name := range slices.Sorted(maps.Keys(v)) {
			w.name(name)
			w.value(v[name], depth+1)
		}
		w.b = append(w.b, '}')
		w.comma = true
	default:
		w.err = refuse("custom claim of type %T", v)
	}
}

// float writes the shortest text that is read as the same float64. Since no text is
// shorter, a payload that Decode accepted never outgrows MaxSize when it is written again.
func (w *writer) float(v float64) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		w.err = refuse("custom claim is no number")
		return
	case v == 0 && math.Signbit(v):
		w.b = append(w.b, '-', '0') // Decode reads this as a float64, because int64 has no negative zero
		return
	}
	var room [64]byte
	digits, tail, _ := strings.Cut(string(strconv.AppendFloat(room[:0], v, 'e', -1, 64)), "e")
	exponent, _ := strconv.Atoi(tail)
	whole, fraction, _ := strings.Cut(digits, ".")
	short := whole + fraction + "e" + strconv.Itoa(exponent-len(fraction))
	if exponent > -maxPlain && exponent < maxPlain {
		plain := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(plain, ".") {
			plain += ".0" // without it Decode reads an int64
		}
		if len(plain) <= len(short) {
			short = plain
		}
	}
	w.b = append(w.b, short...)
}

// maxPlain bounds the exponents of floats that may be shorter when they are written without
// one: a float64 has at most 17 digits.
const maxPlain = 20

// string writes s with the escapes that JSON demands (RFC 8259 §7), in their
// shortest form.
func (w *writer) string(s string) {
	if !utf8.ValidString(s) {
		w.err = refuse("invalid UTF-8")
	}
	w.b = append(w.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c >= '\b' && c <= '\r' && c != '\v':
			w.b = append(w.b, '\\', "btn?fr"[c-'\b'])
		case c < ' ':
			w.b = append(w.b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			w.b = append(w.b, c)
		}
	}
	w.b = append(w.b, '"')
}
