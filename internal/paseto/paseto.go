// Package paseto seals and opens PASETO tokens of four protocols: v4.local, v4.public,
// v2.local and v2.public (paseto-spec, docs/01-Protocol-Versions). It does not know what is
// in a payload, nor when a token expires: its callers do.
//
// A protocol is a property of the key, never of the token: a key opens tokens of its own
// protocol and refuses all others. Version 1 and version 3 do not exist here.
//
// A token is read in two steps. Parse takes a text apart, without allocating, and refuses
// every spelling but the one that sealing writes. Open checks the seal.
package paseto

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Protocol is a version and a purpose.
type Protocol uint8

// The protocols. The zero Protocol is none.
const (
	V4Local  Protocol = 1 + iota // encrypted: whoever can read a token can also make one
	V4Public                     // signed: anybody with the public key can check a token
	V2Local                      // as V4Local, of a version that the specification has deprecated
	V2Public                     // as V4Public, of that version
)

var headers = [...]string{V4Local: "v4.local.", V4Public: "v4.public.", V2Local: "v2.local.", V2Public: "v2.public."}

// String returns the protocol as it stands in a token: "v4.local".
func (p Protocol) String() string {
	if !p.Valid() {
		return fmt.Sprintf("paseto.Protocol(%d)", uint8(p))
	}
	return strings.TrimSuffix(headers[p], ".")
}

// Valid reports whether p is one of the four.
func (p Protocol) Valid() bool { return p >= V4Local && p <= V2Public }

// Local reports whether tokens are encrypted with a symmetric key.
func (p Protocol) Local() bool { return p == V4Local || p == V2Local }

// Version is 4 or 2.
func (p Protocol) Version() int {
	if p == V2Local || p == V2Public {
		return 2
	}
	return 4
}

// Usable fails with ErrUnavailable if this process can neither seal nor open tokens of
// p: FIPS 140-only mode forbids the XChaCha20-Poly1305 of V2Local.
func (p Protocol) Usable() error {
	if p != V2Local {
		return nil
	}
	var key [SymmetricSize]byte
	return aeadUsable(key[:])
}

// Bounds of a token. A caller may ask for less.
const (
	MaxToken  = 8 << 10
	MaxFooter = 512 // encoded
)

// The errors of Parse, Open and Seal. They never contain the token or what is in it.
var (
	ErrFormat   = errors.New("paseto: not a token")
	ErrSize     = errors.New("paseto: token too long")
	ErrProtocol = errors.New("paseto: another version or purpose")
	ErrSeal     = errors.New("paseto: not sealed with this key")
	ErrKey      = errors.New("paseto: not a key for that")
	// ErrUnavailable says that this process may not use the cryptography of the protocol,
	// as in FIPS 140-only mode. Nothing is then known of the token.
	ErrUnavailable = errors.New("paseto: this process cannot compute that")
)

// Token is a text that Parse took apart: its strings are parts of that text.
type Token struct {
	text     string
	protocol Protocol
	body     string // unpadded base64url
	footer   string // the same, "" if there is none
}

// Parse takes a token apart. It accepts only the spelling that sealing writes. So a token
// has no second text that would be another entry in a cache and would escape a deny list.
// Parse allocates nothing.
//
// A text that is no token at all is ErrFormat; a token of another version ("v1.", "v3.") or
// purpose is ErrProtocol; a token longer than MaxToken is ErrSize.
func Parse(text string) (Token, error) {
	if len(text) > MaxToken {
		return Token{}, ErrSize
	}
	t := Token{text: text}
	for p, h := range headers {
		if h != "" && strings.HasPrefix(text, h) {
			t.protocol, t.body = Protocol(p), text[len(h):]
		}
	}
	if !t.protocol.Valid() {
		if looksLikeToken(text) {
			return Token{}, ErrProtocol
		}
		return Token{}, ErrFormat
	}
	if dot := strings.IndexByte(t.body, '.'); dot >= 0 {
		t.body, t.footer = t.body[:dot], t.body[dot+1:]
		if len(t.footer) > MaxFooter {
			return Token{}, ErrSize
		}
		if t.footer == "" || !canonical(t.footer) {
			return Token{}, ErrFormat
		}
	}
	if !canonical(t.body) || base64.RawURLEncoding.DecodedLen(len(t.body)) < overhead[t.protocol] {
		return Token{}, ErrFormat
	}
	return t, nil
}

// overhead is by how many bytes the body of a token is longer than its payload.
var overhead = [...]int{
	V4Local:  32 + 32, // nonce and tag
	V4Public: 64,      // signature
	V2Local:  24 + 16,
	V2Public: 64,
}

// looksLikeToken reports whether text has the form of a token of any version.
func looksLikeToken(text string) bool {
	version, rest, ok := strings.Cut(text, ".")
	purpose, _, ok2 := strings.Cut(rest, ".")
	return ok && ok2 && len(version) >= 2 && len(version) <= 3 && version[0] == 'v' && version[1] >= '1' && version[1] <= '9' &&
		(purpose == "local" || purpose == "public")
}

// canonical reports whether s is a text that unpadded base64url encoding writes. It has no
// other characters, so none of the line breaks that encoding/base64 skips, and no bits left
// over.
func canonical(s string) bool {
	for i := range len(s) {
		if digit[s[i]] == notDigit {
			return false
		}
	}
	switch len(s) % 4 {
	case 1:
		return false
	case 2:
		return digit[s[len(s)-1]]&0x0f == 0
	case 3:
		return digit[s[len(s)-1]]&0x03 == 0
	}
	return true
}

const notDigit = 0xff

var digit = func() (v [256]byte) {
	for i := range v {
		v[i] = notDigit
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		v[c] = byte(i)
	}
	return v
}()

// Protocol returns the protocol that the token claims to have. It is not authenticated: it
// may only be compared with that of the key.
func (t Token) Protocol() Protocol { return t.protocol }

// Footer returns the decoded footer, nil if there is none. The footer is not authenticated
// before Open has succeeded: until then it may name the key to try, and nothing else.
func (t Token) Footer() []byte {
	if t.footer == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(t.footer)
	if err != nil {
		return nil // Parse has seen that it is canonical
	}
	return b
}

// InsecurePayload returns the payload of a signed token, whose seal nobody has checked: it
// is what the text claims, and no more. The payload of an encrypted token cannot be read
// without its key, so it is nil.
func (t Token) InsecurePayload() []byte {
	if t.protocol.Local() {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(t.body)
	if err != nil || len(b) < overhead[t.protocol] {
		return nil // Parse has seen that neither is so
	}
	return b[:len(b)-overhead[t.protocol]]
}

// pae returns the pre-authentication encoding (paseto-spec, "Common Implementation
// Details"): the number of pieces, then each piece after its length. Numbers have 64 bits
// in little endian.
func pae(pieces ...string) []byte {
	dst := binary.LittleEndian.AppendUint64(nil, uint64(len(pieces)))
	for _, p := range pieces {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(p)))
		dst = append(dst, p...)
	}
	return dst
}

// write joins the parts of a token.
func write(p Protocol, body []byte, footer string) string {
	enc := base64.RawURLEncoding
	n := len(headers[p]) + enc.EncodedLen(len(body))
	if footer != "" {
		n += 1 + enc.EncodedLen(len(footer))
	}
	out := append(make([]byte, 0, n), headers[p]...)
	out = enc.AppendEncode(out, body)
	if footer != "" {
		out = append(out, '.')
		out = enc.AppendEncode(out, []byte(footer))
	}
	return string(out)
}
