// Package importedhash checks a secret against a hash that another system made, so that the
// keys of that system can be imported without a change for their holders. It does not know
// what the secret is for, nor where the hash is stored.
//
// It reads these texts:
//
//	<64 hex digits>                               SHA-256 of the secret, no salt
//	$sha512$prefix$<salt>$<digest>                SHA-512 of salt then secret
//	$sha512$suffix$<salt>$<digest>                SHA-512 of secret then salt
//	$2a$ $2b$ $2y$<cost>$<22><31>                 bcrypt
//	$pbkdf2-sha256$i=<n>$<salt>$<digest>          PBKDF2 (RFC 8018), also -sha512
//	pbkdf2_sha256$<n>$<salt>$<digest>             PBKDF2 as Django writes it
//	$argon2id$v=19$m=<KiB>,t=<n>,p=<n>$<salt>$<digest>   argon2id (RFC 9106)
//
// Salt and digest are base64 without padding, as in the PHC string format; in Django's form
// the salt is the text itself and the digest is padded base64. A text whose check would
// cost more than the limits of this package is refused when it is read. So this package
// bounds the cost of a check, and not whoever wrote the hash.
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

// The errors of Parse, and the error of a check. They never contain the text of a hash.
// Users see their texts, which still have an older name of this package.
var (
	ErrFormat = errors.New("legacyhash: unknown or malformed hash")
	ErrCost   = errors.New("legacyhash: hash costs too much or too little to check")
	// ErrUnavailable says that this process may not compute the hash, as in FIPS 140-only
	// mode. It is then not known whether a secret matches.
	ErrUnavailable = errors.New("legacyhash: this process cannot compute the hash")
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
	saltedSHA512
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
	sha512       bool // PBKDF2 uses SHA-512
	cost, memory uint32
	threads      uint8
}

// Format writes nothing of the hash, for every verb.
func (h Hash) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("importedhash.Hash")) }

// Text returns what Parse read.
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

// Parse reads a hash, or fails with ErrFormat or ErrCost.
func Parse(text string) (Hash, error) {
	if len(text) > maxText {
		return Hash{}, ErrFormat
	}
	h := Hash{text: strings.Clone(text)}
	var err error
	switch {
	case len(text) == 2*sha256.Size && !strings.Contains(text, "$"):
		h.kind = plainSHA256
		if h.digest, err = hex.DecodeString(text); err != nil {
			return Hash{}, ErrFormat
		}
		return h, nil
	case strings.HasPrefix(text, "$sha512$"):
		err = h.parseSHA512(strings.Split(text, "$"))
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		err = h.parseBcrypt(text)
	case strings.HasPrefix(text, "$pbkdf2-sha256$"), strings.HasPrefix(text, "$pbkdf2-sha512$"):
		err = h.parsePBKDF2(strings.Split(text, "$"))
	case strings.HasPrefix(text, "pbkdf2_sha256$"):
		err = h.parseDjango(strings.Split(text, "$"))
	case strings.HasPrefix(text, "$argon2id$"):
		err = h.parseArgon2id(strings.Split(text, "$"))
	default:
		err = ErrFormat
	}
	if err != nil {
		return Hash{}, err
	}
	return h, nil
}

func (h *Hash) parseSHA512(parts []string) error {
	if len(parts) != 5 || parts[2] != "prefix" && parts[2] != "suffix" {
		return ErrFormat
	}
	h.kind, h.suffix = saltedSHA512, parts[2] == "suffix"
	return h.saltAndDigest(parts[3], parts[4], sha512.Size)
}

func (h *Hash) parseBcrypt(text string) error {
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil || len(text) != 60 {
		return ErrFormat
	}
	for i := range len(text) - 7 { // the library looks at these characters only when it checks
		if c := text[7+i]; !strings.ContainsRune("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", rune(c)) {
			return ErrFormat
		}
	}
	if cost > maxBcrypt {
		return ErrCost
	}
	h.kind = bcryptHash
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

// Usable fails with ErrUnavailable if this process can never check h. It costs next to
// nothing.
func (h Hash) Usable() error {
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
	case saltedSHA512:
		d := sha512.New()
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
	if len(secret) > maxBcryptIn {
		return false, nil
	}
	err := bcrypt.CompareHashAndPassword([]byte(h.text), []byte(secret))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	}
	return false, fmt.Errorf("%w: bcrypt", ErrUnavailable) // its error may quote the hash
}

func (h Hash) pbkdf2(secret string) ([]byte, error) {
	fn := func() hash.Hash { return sha256.New() }
	if h.sha512 {
		fn = func() hash.Hash { return sha512.New() }
	}
	key, err := pbkdf2.Key(fn, secret, h.salt, int(h.cost), len(h.digest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err) // names a rule, no value
	}
	return key, nil
}
