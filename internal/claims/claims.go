// Package claims writes and reads the payload of a PASETO: one JSON object of
// registered claims (paseto-spec, "Registered Claims") and
// those of OAuth (RFC 9068, RFC 9396).
//
// Reading is strict where encoding/json is not: a name occurs once and in its
// exact case, times have the one form of RFC 3339, types are those that the
// claim has. Two readers of a payload must not be able to read two things.
package claims

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Claims is the payload of a token. Times are Unix seconds; "", nil and 0 are
// claims that are not there.
type Claims struct {
	Issuer, Subject, Audience, ID  string // iss, sub, aud, jti
	IssuedAt, NotBefore, ExpiresAt int64  // iat, nbf, exp

	Scope       string  // scope: separated by spaces (RFC 6749 §3.3)
	ClientID    string  // client_id
	SubjectType string  // sub_type
	Family      string  // family
	Epoch       uint64  // epoch
	Use         string  // use
	Grants      []Grant // authorization_details (RFC 9396 §2)

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
)

// ErrClaims is every refusal. Its texts name claims that are known, and never a
// value.
var ErrClaims = errors.New("claims: payload refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrClaims}, args...)...)
}

// known are the claims with a meaning here.
var known = []string{
	"iss", "sub", "aud", "jti", "iat", "nbf", "exp",
	"scope", "client_id", "sub_type", "family", "epoch", "use", "authorization_details",
}

// Append writes the payload of c after dst: known claims in a fixed order, then
// the others by name. It refuses what Decode would refuse.
func Append(dst []byte, c *Claims) ([]byte, error) {
	w := writer{b: append(dst, '{')}
	for _, claim := range []struct{ name, value string }{
		{"iss", c.Issuer}, {"sub", c.Subject}, {"aud", c.Audience}, {"jti", c.ID},
	} {
		w.text(claim.name, claim.value)
	}
	for _, claim := range []struct {
		name    string
		seconds int64
	}{{"iat", c.IssuedAt}, {"nbf", c.NotBefore}, {"exp", c.ExpiresAt}} {
		if claim.seconds != 0 {
			at := time.Unix(claim.seconds, 0).UTC()
			if claim.seconds < 0 || at.Year() > 9999 {
				return nil, refuse("%s out of range", claim.name)
			}
			w.text(claim.name, at.Format(time.RFC3339))
		}
	}
	for _, claim := range []struct{ name, value string }{
		{"scope", c.Scope}, {"client_id", c.ClientID}, {"sub_type", c.SubjectType}, {"family", c.Family},
	} {
		w.text(claim.name, claim.value)
	}
	if c.Epoch > math.MaxInt64 {
		return nil, refuse("epoch out of range")
	}
	if c.Epoch != 0 {
		w.name("epoch")
		w.b = strconv.AppendUint(w.b, c.Epoch, 10)
	}
	w.text("use", c.Use)
	w.grants(c.Grants)
	for _, name := range slices.Sorted(maps.Keys(c.Custom)) {
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
		for _, list := range []struct {
			name   string
			values []string
		}{{"actions", g.Actions}, {"identifiers", g.Identifiers}} {
			if len(list.values) == 0 {
				continue
			}
			w.name(list.name)
			for j, v := range list.values {
				w.b = append(w.b, "[,"[min(j, 1)])
				w.string(v)
			}
			w.b = append(w.b, ']')
		}
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
	w.comma = true
}

// value writes a custom claim of one of the types that Decode returns, or of
// int, which is what programs write.
func (w *writer) value(v any, depth int) {
	if depth > maxDepth {
		w.err = refuse("nested too deep")
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

// float writes a number so that it is read as a float64 again.
func (w *writer) float(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		w.err = refuse("custom claim is no number")
		return
	}
	start := len(w.b)
	w.b = strconv.AppendFloat(w.b, v, 'g', -1, 64)
	if !slices.ContainsFunc(w.b[start:], func(c byte) bool { return c == '.' || c == 'e' }) {
		w.b = append(w.b, '.', '0')
	}
}

// string writes s with the escapes that JSON demands (RFC 8259 §7), no others.
func (w *writer) string(s string) {
	if !utf8.ValidString(s) {
		w.err = refuse("invalid UTF-8")
	}
	w.b = append(w.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c < ' ':
			w.b = append(w.b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			w.b = append(w.b, c)
		}
	}
	w.b = append(w.b, '"')
}
