// Package keytext reads and writes the text form of API keys.
//
//	<prefix>_<version 1><id 16><secret 32><checksum 6>
//
// The 55 characters after the last '_' are base62 in ASCII order, so that IDs sort as bytes
// in the order in which they were drawn. The checksum is CRC-32C over everything before it.
// A text is read in three steps, from cheap to expensive, so that a caller can stop early:
// Split, Check (whose quick part is Summed), Block. A caller that knows the Sum of a text
// which was accepted may compare that in place of Check. None of them allocates, keeps the
// text, or can panic. The package does not know whether a key exists, nor which prefixes are
// in use.
package keytext

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
	"unsafe"
)

// The parts of a key's text, in characters.
const (
	IDLen     = 16
	SecretLen = 32
	sumLen    = 6
	// BlockLen is the length of the version, the ID and the secret, which the digest is
	// made over. With the padding of SHA-256 they are exactly one block.
	BlockLen = 1 + IDLen + SecretLen
	// BodyLen is everything after the separator.
	BodyLen = BlockLen + sumLen
	// MaxPrefix bounds the prefix.
	MaxPrefix = 20
	// Current is the version character of what Format writes.
	Current = '1'
)

// Problem is what is wrong with a text; OK means nothing.
type Problem uint8

// The problems, in the order in which they are looked for.
const (
	OK Problem = iota
	Length
	Prefix
	Version
	Alphabet
	Checksum
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// values gives each base62 character its value and every other byte notDigit.
var values = func() (v [256]byte) {
	for i := range v {
		v[i] = notDigit
	}
	for i := range len(digits) {
		v[digits[i]] = byte(i)
	}
	return v
}()

const notDigit = 0x80

// castagnoli is used, and not the IEEE polynomial, because the processor computes it in a
// third of the time.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Split checks the length and finds the prefix, which is part of text.
func Split(text string) (prefix string, p Problem) {
	n := len(text) - BodyLen - 1
	if n < 1 || n > MaxPrefix || text[n] != '_' {
		return "", Length
	}
	return text[:n], OK
}

// Summed reports whether the version and the checksum of a text that Split accepts are
// right. It is the part of Check that finds a typing error. A text that passes it need not
// be one that Format wrote, because anybody can compute a checksum over anything.
func Summed(text string) bool {
	if len(text) < BodyLen {
		return false
	}
	all := bytes(text)
	end := len(all) - sumLen
	return all[len(all)-BodyLen] == Current && decode(all[end:]) == uint64(crc32.Update(0, castagnoli, all[:end]))
}

// Sum returns the checksum that a text that Split accepts ends with, right or wrong. Of two
// texts with one prefix and one Secret, at most one has the right one.
func Sum(text string) (sum [sumLen]byte) {
	if len(text) >= sumLen {
		sum = [sumLen]byte(bytes(text)[len(text)-sumLen:])
	}
	return sum
}

// Check checks the body of a text that Split accepts.
func Check(text string) Problem {
	switch {
	case !Summed(text):
		return Blame(text)
	case !isBase62(bytes(text)[len(text)-BodyLen:]):
		// The checksum says nothing about the alphabet, because anybody can compute a
		// checksum.
		return Alphabet
	}
	return OK
}

// Blame returns what is wrong with a text that Split accepts and Summed does not.
func Blame(text string) Problem {
	body := bytes(text)[max(len(text)-BodyLen, 0):]
	switch {
	case len(body) < BodyLen:
		return Length
	case body[0] != Current:
		return Version
	case !isBase62(body):
		return Alphabet
	}
	return Checksum
}

// bytes returns the bytes of the text itself, which must only be read. A copy would
// allocate for every text that anybody sends.
func bytes(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// isBase62 reports whether the body is base62. It looks at eight bytes at a time, and not in
// a loop, which takes a quarter of the time of a table. The last word overlaps the one
// before.
func isBase62(body []byte) bool {
	b := (*[BodyLen]byte)(body)
	sound := soundBytes(b[:]) & soundBytes(b[8:]) & soundBytes(b[16:]) & soundBytes(b[24:]) &
		soundBytes(b[32:]) & soundBytes(b[40:]) & soundBytes(b[BodyLen-8:])
	// The sum of a byte that has its high bit set may carry a one into the next byte, which
	// may then be taken for a digit. But the byte with the high bit is not taken for one,
	// with a carry or without: no sum at its place has the high bit for lo and not for hi.
	// So the text is refused all the same.
	return sound == highBits
}

const highBits = 0x8080808080808080

// soundBytes returns eight bytes that have the high bit where b has a base62 digit, and no
// other bit. Adding 0x80-lo sets the high bit of each byte that is at least lo, and adding
// 0x7f-hi sets the high bit of each byte above hi.
func soundBytes(b []byte) uint64 {
	const ones = 0x0101010101010101
	w := binary.LittleEndian.Uint64(b)
	digit := (w + (0x80-'0')*ones) &^ (w + (0x7f-'9')*ones)
	upper := (w + (0x80-'A')*ones) &^ (w + (0x7f-'Z')*ones)
	lower := (w + (0x80-'a')*ones) &^ (w + (0x7f-'z')*ones)
	return (digit | upper | lower) & highBits
}

// decode returns the number that six base62 characters write, which is below 2^36, or a
// greater number if they are not base62. Each number has only one such text, so no two
// sound texts differ only in the checksum.
func decode(b []byte) uint64 {
	c := (*[sumLen]byte)(b)
	v0, v1, v2, v3, v4, v5 := values[c[0]], values[c[1]], values[c[2]], values[c[3]], values[c[4]], values[c[5]]
	// In pairs, which do not wait for one another.
	n := (uint64(v0)*62+uint64(v1))*(62*62*62*62) + (uint64(v2)*62+uint64(v3))*(62*62) + uint64(v4)*62 + uint64(v5)
	return n | uint64((v0|v1|v2|v3|v4|v5)&notDigit)<<56
}

// Secret returns the version, the ID and the secret of a text that Split accepts. The
// result is a part of the text itself and must only be read.
func Secret(text string) []byte {
	start := len(text) - BodyLen
	return bytes(text)[start : start+BlockLen : start+BlockLen]
}

// Block returns the version, the ID and the secret of a text that Check accepts.
func Block(text string) (b [BlockLen]byte) {
	if start := len(text) - BodyLen; start >= 0 {
		copy(b[:], text[start:])
	}
	return b
}

// Format writes the text of a key.
func Format(prefix string, id [IDLen]byte, secret [SecretLen]byte) string {
	b := make([]byte, 0, len(prefix)+1+BodyLen)
	b = append(b, prefix...)
	b = append(b, '_', Current)
	b = append(b, id[:]...)
	b = append(b, secret[:]...)
	sum := crc32.Update(0, castagnoli, b)
	b = append(b, make([]byte, sumLen)...)
	encode(b[len(b)-sumLen:], uint64(sum))
	return string(b)
}

// encode writes n in base62 over all of dst.
func encode(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = digits[n%62]
		n /= 62
	}
}

// An ID is two numbers below 62^8 (47.6 bits), of eight characters each. The first is 43
// bits of Unix milliseconds (until the year 2248) and 4 random bits; the second is 47
// random bits.
const (
	halfLen  = IDLen / 2
	noise    = 4
	timeBits = 43
	lowBits  = 47
)

// NewID draws an ID for a key issued at now.
func NewID(now time.Time) (id [IDLen]byte) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never returns an error
	r := binary.BigEndian.Uint64(b[:])
	ms := uint64(max(now.UnixMilli(), 0)) & (1<<timeBits - 1)
	encode(id[:halfLen], ms<<noise|r>>(64-noise))
	encode(id[halfLen:], r&(1<<lowBits-1))
	return id
}

// IDTime returns the millisecond in which an ID was drawn.
func IDTime(id [IDLen]byte) time.Time {
	var n uint64
	for _, c := range id[:halfLen] {
		n = n*62 + uint64(values[c])
	}
	return time.UnixMilli(int64(n >> noise)).UTC()
}

// ParseID reads the text of an ID.
func ParseID(text string) (id [IDLen]byte, ok bool) {
	if len(text) != IDLen {
		return id, false
	}
	for i := range IDLen {
		if values[text[i]] == notDigit {
			return [IDLen]byte{}, false
		}
		id[i] = text[i]
	}
	return id, true
}

// NewSecret draws a secret: 32 characters, each of the 62 as likely as any
// other, 190.5 bits.
func NewSecret() (secret [SecretLen]byte) {
	const fair = 256 / 62 * 62 // bytes from here on would favour the first characters
	var pool [SecretLen + SecretLen/4]byte
	for n := 0; n < len(secret); {
		_, _ = rand.Read(pool[:]) // never returns an error
		for _, c := range pool {
			if c < fair && n < len(secret) {
				secret[n] = digits[c%62]
				n++
			}
		}
	}
	return secret
}

var errPrefix = errors.New("want 1 to 20 lower-case letters and digits, beginning with a letter, in parts joined by single '_'")

// CheckPrefix returns why a prefix cannot be used, or nil.
func CheckPrefix(prefix string) error {
	if prefix == "" || len(prefix) > MaxPrefix || prefix[0] < 'a' || prefix[len(prefix)-1] == '_' {
		return errPrefix
	}
	for i := range len(prefix) {
		c := prefix[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '_' && prefix[i-1] != '_':
		default:
			return errPrefix
		}
	}
	return nil
}
