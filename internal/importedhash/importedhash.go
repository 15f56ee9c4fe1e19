// Package importedhash checks a secret against a hash that another system made, so that the
// keys of that system can be imported without a change for their holders. It does not know
// what the secret is for, nor where the hash is stored.
//
// It reads these texts:
//
//	<64 hex digits>, <128 hex digits>             SHA-256, SHA-512 of the secret, no salt
//	$sha256$prefix$<salt>$<digest>                SHA-256 of salt then secret, also $sha512$
//	$sha256$suffix$<salt>$<digest>                SHA-256 of secret then salt, also $sha512$
//	$2a$ $2b$ $2y$<cost>$<22><31>                 bcrypt
//	bcrypt_sha256$$2b$<cost>$<22><31>             bcrypt of the hex digits of SHA-256 (Django)
//	$pbkdf2-sha256$i=<n>$<salt>$<digest>          PBKDF2 (RFC 8018), also -sha512
//	pbkdf2_sha256$<n>$<salt>$<digest>             PBKDF2 as Django writes it
//	$argon2id$v=19$m=<KiB>,t=<n>,p=<n>$<salt>$<digest>   argon2id (RFC 9106)
//
// Salt and digest are base64 without padding, as in the PHC string format; in Django's form
// the salt is the text itself and the digest is padded base64. Some products write these
// hashes in other spellings: spelling.go turns them into the texts above. A text that is
// none of all these is refused, with a word on what to write instead (refusal.go).
//
// A text whose check would cost more than the limits of this package is refused when it is
// read. So this package bounds the cost of a check, and not whoever wrote the hash.
package importedhash

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The errors of Parse, and the errors of a hash that was read. They never contain the text
// of a hash.
var (
	ErrFormat = errors.New("imported hash: unknown or malformed")
	ErrCost   = errors.New("imported hash: costs too much or too little to check")
	// ErrEmpty says that the hash is that of an empty secret, so no key ever matches it.
	ErrEmpty = errors.New("imported hash: the hash of an empty text")
	// ErrUnavailable says that this process may not compute the hash, as in FIPS 140-only
	// mode. It is then not known whether a secret matches.
	ErrUnavailable = errors.New("imported hash: this process cannot compute it")
)

// The bounds of what Parse accepts.
const (
	maxText       = 1024
	maxBcrypt     = 15 // about 2 s
	maxIterations = 5_000_000
	maxMemory     = 256 << 10 // KiB
	maxTime       = 16
	maxThreads    = 16
	minDigest     = 16
	maxDigest     = 64
	maxSalt       = 64
	maxBcryptIn   = 72 // bytes that bcrypt looks at
)

type kind uint8

const (
	plainSHA256 kind = 1 + iota
	plainSHA512
	saltedHash
	bcryptHash
	pbkdf2Hash
	argon2idHash
)

// Hash is a hash that was read. The zero Hash matches nothing.
type Hash struct {
	kind         kind
	text         string
	salt, digest []byte
	suffix       bool // the salt comes after the secret
	sha512       bool // a salted hash or PBKDF2 uses SHA-512
	prehashed    bool // bcrypt gets the hex digits of the SHA-256 of the secret
	cost, memory uint32
	threads      uint8
}

// Format writes nothing of the hash, for every verb.
func (h Hash) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("importedhash.Hash")) }

// Text returns the hash as this package writes it, whatever spelling Parse has read.
func (h Hash) Text() string { return h.text }

// Slow reports whether a check is meant to be expensive.
func (h Hash) Slow() bool {
	return h.kind == bcryptHash || h.kind == pbkdf2Hash || h.kind == argon2idHash
}

// Lanes returns on how many cores a check runs at once: for argon2id its lanes (RFC 9106
// calls their number the degree of parallelism), otherwise 1.
func (h Hash) Lanes() int { return max(int(h.threads), 1) }

// SHA256 returns the digest of a SHA-256 without salt, by which a key can be looked up.
func (h Hash) SHA256() (digest [sha256.Size]byte, ok bool) {
	if h.kind != plainSHA256 {
		return digest, false
	}
	copy(digest[:], h.digest)
	return digest, true
}

// Parse reads a hash, or fails with ErrFormat or ErrCost and says what to write instead.
func Parse(text string) (Hash, error) {
	if len(text) > maxText {
		return Hash{}, fmt.Errorf("%w: no hash is so long", ErrFormat)
	}
	h := Hash{text: strings.Clone(respell(text))}
	if err := h.parse(); err != nil {
		return Hash{}, refusal(text, err)
	}
	return h, nil
}

func (h *Hash) parse() error {
	parts := strings.Split(h.text, "$")
	if len(parts) == 1 {
		switch len(h.text) {
		case 2 * sha256.Size:
			return h.parsePlain(plainSHA256)
		case 2 * sha512.Size:
			return h.parsePlain(plainSHA512)
		}
		return ErrFormat
	}
	switch parts[0] {
	case "":
	case "bcrypt_sha256":
		h.prehashed = true
		rest := strings.TrimPrefix(h.text, "bcrypt_sha256$")
		if !strings.HasPrefix(rest, "$2b$") {
			return ErrFormat
		}
		return h.parseBcrypt(rest)
	case "pbkdf2_sha256":
		return h.parseDjango(parts)
	default:
		return ErrFormat
	}
	switch parts[1] {
	case "sha256", "sha512":
		return h.parseSalted(parts)
	case "2a", "2b", "2y":
		return h.parseBcrypt(h.text)
	case "pbkdf2-sha256", "pbkdf2-sha512":
		return h.parsePBKDF2(parts)
	case "argon2id":
		return h.parseArgon2id(parts)
	}
	return ErrFormat
}

func (h *Hash) parsePlain(k kind) (err error) {
	h.kind = k
	if h.digest, err = hex.DecodeString(h.text); err != nil {
		return ErrFormat
	}
	return nil
}

func (h *Hash) parseSalted(parts []string) error {
	if len(parts) != 5 || parts[2] != "prefix" && parts[2] != "suffix" {
		return ErrFormat
	}
	h.kind, h.suffix, h.sha512 = saltedHash, parts[2] == "suffix", parts[1] == "sha512"
	if h.sha512 {
		return h.saltAndDigest(parts[3], parts[4], sha512.Size)
	}
	return h.saltAndDigest(parts[3], parts[4], sha256.Size)
}

// bcryptDigits is the alphabet of the base64 of bcrypt.
const bcryptDigits = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (h *Hash) parseBcrypt(text string) error {
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil || len(text) != 60 {
		return ErrFormat
	}
	for i := 7; i < len(text); i++ { // the library looks at these characters only when it checks
		digit := strings.IndexByte(bcryptDigits, text[i])
		// The last digit has 2 bits more than the hash. One in which they are set matches nothing.
		if digit < 0 || i == len(text)-1 && digit%4 != 0 {
			return ErrFormat
		}
	}
	if cost > maxBcrypt {
		return ErrCost
	}
	h.kind, h.digest = bcryptHash, []byte(text)
	return nil
}

func (h *Hash) parsePBKDF2(parts []string) error {
	if len(parts) != 5 {
		return ErrFormat
	}
	h.kind, h.sha512 = pbkdf2Hash, parts[1] == "pbkdf2-sha512"
	n, ok := strings.CutPrefix(parts[2], "i=")
	if !ok {
		return ErrFormat
	}
	if err := h.iterations(n); err != nil {
		return err
	}
	return h.saltAndDigest(parts[3], parts[4], 0)
}

func (h *Hash) parseDjango(parts []string) error {
	if len(parts) != 4 || parts[2] == "" || len(parts[2]) > maxSalt {
		return ErrFormat
	}
	h.kind, h.salt = pbkdf2Hash, []byte(parts[2])
	if err := h.iterations(parts[1]); err != nil {
		return err
	}
	var err error
	h.digest, err = base64.StdEncoding.Strict().DecodeString(parts[3])
	if err != nil || len(h.digest) != sha256.Size || strings.ContainsAny(parts[3], "\r\n") {
		return ErrFormat
	}
	return nil
}

func (h *Hash) parseArgon2id(parts []string) error {
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return ErrFormat
	}
	var m, t, p uint64
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return ErrFormat
	}
	for i, want := range []struct {
		name string
		n    *uint64
	}{{"m=", &m}, {"t=", &t}, {"p=", &p}} {
		text, ok := strings.CutPrefix(params[i], want.name)
		if !ok {
			return ErrFormat
		}
		n, err := number(text)
		if err != nil {
			return err
		}
		*want.n = n
	}
	// RFC 9106 §3.1: p at least 1, m at least 8p, t at least 1.
	if p < 1 || p > maxThreads || t < 1 || t > maxTime || m < 8*p || m > maxMemory {
		return ErrCost
	}
	h.kind, h.memory, h.cost, h.threads = argon2idHash, uint32(m), uint32(t), uint8(p)
	return h.saltAndDigest(parts[4], parts[5], 0)
}

func (h *Hash) iterations(text string) error {
	n, err := number(text)
	if err != nil {
		return err
	}
	if n < 1 || n > maxIterations {
		return ErrCost
	}
	h.cost = uint32(n)
	return nil
}

// number reads a decimal number in its shortest form.
func number(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, ErrFormat
	}
	return n, nil
}

// saltAndDigest reads salt and digest, which are unpadded base64. size is the length that
// the digest must have; zero means any length within the bounds.
func (h *Hash) saltAndDigest(salt, digest string, size int) (err error) {
	enc := base64.RawStdEncoding.Strict()
	if h.salt, err = enc.DecodeString(salt); err != nil {
		return ErrFormat
	}
	if h.digest, err = enc.DecodeString(digest); err != nil {
		return ErrFormat
	}
	n := len(h.digest)
	if len(h.salt) == 0 || len(h.salt) > maxSalt || n < minDigest || n > maxDigest || size != 0 && n != size ||
		strings.ContainsAny(salt+digest, "\r\n") {
		return ErrFormat
	}
	return nil
}

// Usable fails with ErrUnavailable if this process can never check h, and with ErrEmpty if
// h is a fast hash of an empty secret. It costs next to nothing.
func (h Hash) Usable() error {
	if !h.Slow() {
		empty, err := h.Check("")
		if empty {
			return ErrEmpty
		}
		return err
	}
	if h.kind != pbkdf2Hash {
		return nil
	}
	h.cost = 1 // whether it may be computed does not depend on the iterations
	_, err := h.pbkdf2("")
	return err
}

// Check reports whether secret is the text that was hashed. bcrypt looks at 72 bytes only,
// so a longer secret never matches there; otherwise its first 72 bytes would be enough.
// Check fails with ErrUnavailable if this process cannot compute the hash.
func (h Hash) Check(secret string) (matches bool, err error) {
	// Some primitives panic if the mode of the process forbids them.
	defer func() {
		if r := recover(); r != nil {
			matches, err = false, fmt.Errorf("%w: panic", ErrUnavailable)
		}
	}()
	var got []byte
	switch h.kind {
	case plainSHA256:
		sum := sha256.Sum256([]byte(secret))
		got = sum[:]
	case plainSHA512:
		sum := sha512.Sum512([]byte(secret))
		got = sum[:]
	case saltedHash:
		d := h.hash()
		if !h.suffix {
			d.Write(h.salt)
		}
		d.Write([]byte(secret))
		if h.suffix {
			d.Write(h.salt)
		}
		got = d.Sum(nil)
	case bcryptHash:
		return h.bcrypt(secret)
	case pbkdf2Hash:
		if got, err = h.pbkdf2(secret); err != nil {
			return false, err
		}
	case argon2idHash:
		got = argon2.IDKey([]byte(secret), h.salt, h.cost, h.memory, h.threads, uint32(len(h.digest)))
	default:
		return false, nil
	}
	return subtle.ConstantTimeCompare(got, h.digest) == 1, nil
}

func (h Hash) bcrypt(secret string) (bool, error) {
	if h.prehashed {
		sum := sha256.Sum256([]byte(secret))
		secret = hex.EncodeToString(sum[:])
	}
	if len(secret) > maxBcryptIn {
		return false, nil
	}
	err := bcrypt.CompareHashAndPassword(h.digest, []byte(secret))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	}
	return false, fmt.Errorf("%w: bcrypt", ErrUnavailable) // its error may quote the hash
}

func (h Hash) pbkdf2(secret string) ([]byte, error) {
	key, err := pbkdf2.Key(h.hash, secret, h.salt, int(h.cost), len(h.digest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err) // names a rule, no value
	}
	return key, nil
}

// hash is the hash function under a salt.
func (h Hash) hash() hash.Hash {
	if h.sha512 {
		return sha512.New()
	}
	return sha256.New()
}
