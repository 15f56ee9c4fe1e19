package claims

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// Decode reads a payload. Nothing that it returns is a part of payload.
func Decode(payload []byte) (Claims, error) {
	if len(payload) > MaxSize {
		return Claims{}, refuse("more than %d bytes", MaxSize)
	}
	if !utf8.Valid(payload) {
		return Claims{}, refuse("invalid UTF-8")
	}
	// The payload is copied once, and the strings are parts of the copy: one allocation
	// instead of one for each string.
	r := reader{s: string(payload)}
	var c Claims
	r.space()
	r.object(1, func(name string) { c.read(&r, name) })
	r.space()
	if r.err == nil && r.i != len(r.s) {
		r.fail("something follows the object")
	}
	if r.err != nil {
		return Claims{}, r.err
	}
	return c, nil
}

// read reads the value of one claim.
func (c *Claims) read(r *reader, name string) {
	switch name {
	case "iss":
		c.Issuer = r.text()
	case "sub":
		c.Subject = r.text()
	case "aud":
		c.Audience = r.text()
	case "jti":
		c.ID = r.text()
	case "iat":
		c.IssuedAt = r.instant(true)
	case "nbf":
		c.NotBefore = r.instant(true)
	case "exp":
		c.ExpiresAt = r.instant(false)
	case "scope":
		c.Scope = r.text()
	case "client_id":
		c.ClientID = r.text()
	case "sub_type":
		c.SubjectType = r.text()
	case "family":
		c.Family = r.text()
	case "account":
		c.Account = r.text()
	case "roles":
		c.Roles = r.list(2)
	case "account_epoch":
		c.AccountEpoch = r.natural()
	case "epoch":
		c.Epoch = r.natural()
	case "iss_epoch":
		c.IssuerEpoch = r.natural()
	case "use":
		c.Use = r.text()
	case "authorization_details":
		c.Grants = r.grants()
	default:
		if isReserved(name) {
			r.fail("a claim differs from a known one in case only")
			return
		}
		if c.Custom == nil {
			c.Custom = make(map[string]any)
		}
		c.Custom[name] = r.value(2)
	}
}

// text reads a known claim that is a string and must not be empty.
func (r *reader) text() string {
	if r.peek() != '"' {
		r.fail("not a string")
		return ""
	}
	s := r.string()
	if s == "" {
		r.fail("empty")
	}
	return s
}

// natural reads a known claim that is an integer from 1 up, in its plain form.
func (r *reader) natural() uint64 {
	text, integer := r.number()
	n, err := strconv.ParseUint(text, 10, 63)
	if !integer || err != nil || n == 0 {
		r.fail("not an integer in range")
	}
	return n
}

func (r *reader) grants() []Grant {
	grants := []Grant{}
	r.members(2, '[', ']', func() {
		var g Grant
		r.object(3, func(member string) {
			switch member {
			case "type":
				g.Type = r.text()
			case "actions":
				g.Actions = r.list(4)
			case "identifiers":
				g.Identifiers = r.list(4)
			default:
				r.fail("a member that is not known")
			}
		})
		if g.Type == "" {
			r.fail("a grant without a type")
		}
		grants = append(grants, g)
	})
	if len(grants) == 0 {
		r.fail("empty")
	}
	return grants
}

// list reads an array of unique strings.
func (r *reader) list(depth int) []string {
	list := []string{}
	r.members(depth, '[', ']', func() {
		s := r.text()
		if slices.Contains(list, s) {
			r.fail("the same string twice in a list")
		}
		list = append(list, s)
	})
	if len(list) == 0 {
		r.fail("an empty list")
	}
	return list
}
