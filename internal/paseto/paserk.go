package paseto

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"filippo.io/edwards25519"
)

// PASERK is how keys are written (github.com/paseto-standard/paserk). The types
// here, each for versions 2 and 4:
//
//	k4.local k4.secret k4.public         the key itself
//	k4.lid k4.sid k4.pid                 its name, safe to show
//	k4.local-wrap.pie k4.secret-wrap.pie sealed under a symmetric key
//	k4.seal                              a symmetric key, sealed to a public key

// ErrPASERK says that a text is not the PASERK that was asked for.
var ErrPASERK = errors.New("paseto: not such a PASERK")

// idSize is the length of an ID in bytes: no padding in base64.
const idSize = 33

// paserk is the start of a PASERK of type typ for the version of p.
func (p Protocol) paserk(typ string) string {
	return fmt.Sprintf("k%d.%s.", p.Version(), typ)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// name returns the ID of the key whose plain PASERK is given.
func (p Protocol) name(typ, plain string) string {
	h := p.paserk(typ)
	return h + encode(keyed(idSize, nil, h, plain))
}

// ID is the key's PASERK ID, "k4.lid.…": a name that gives nothing away.
func (k SymmetricKey) ID() string { return k.protocol.name("lid", k.PASERK()) }

// ID is the key's PASERK ID, "k4.sid.…".
func (k SecretKey) ID() string { return k.protocol.name("sid", k.PASERK()) }

// ID is the key's PASERK ID, "k4.pid.…".
func (k PublicKey) ID() string { return k.protocol.name("pid", k.PASERK()) }

// PASERK is the key itself, "k4.local.…": a secret.
func (k SymmetricKey) PASERK() string { return k.protocol.paserk("local") + encode(k.b[:]) }

// PASERK is the key itself, "k4.secret.…": a secret.
func (k SecretKey) PASERK() string { return k.protocol.paserk("secret") + encode(k.b[:]) }

// PASERK is the key itself, "k4.public.…", which anybody may have.
func (k PublicKey) PASERK() string { return k.protocol.paserk("public") + encode(k.b[:]) }

// data decodes what follows the type of a PASERK of that type.
func (p Protocol) data(typ, text string) ([]byte, error) {
	if !p.Valid() {
		return nil, fmt.Errorf("%w: of no protocol", ErrPASERK)
	}
	rest, ok := strings.CutPrefix(text, p.paserk(typ))
	if !ok || len(rest) > MaxFooter || !canonical(rest) {
		return nil, fmt.Errorf("%w: want %s…", ErrPASERK, p.paserk(typ))
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil {
		return nil, fmt.Errorf("%w: want %s…", ErrPASERK, p.paserk(typ))
	}
	return b, nil
}

// ParseSymmetricKey reads a PASERK of type local, for a protocol that is local.
func ParseSymmetricKey(p Protocol, text string) (SymmetricKey, error) {
	b, err := p.data("local", text)
	if err != nil {
		return SymmetricKey{}, err
	}
	return SymmetricKeyFrom(p, b)
}

// ParseSecretKey reads a PASERK of type secret, for a protocol that is public.
func ParseSecretKey(p Protocol, text string) (SecretKey, error) {
	b, err := p.data("secret", text)
	if err != nil {
		return SecretKey{}, err
	}
	return SecretKeyFrom(p, b)
}

// ParsePublicKey reads a PASERK of type public, for a protocol that is public.
func ParsePublicKey(p Protocol, text string) (PublicKey, error) {
	b, err := p.data("public", text)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKeyFrom(p, b)
}

// ParseID checks the form of a PASERK ID of one of some types and returns it.
func ParseID(p Protocol, text string, types ...string) (string, error) {
	for _, typ := range types {
		if b, err := p.data(typ, text); err == nil && len(b) == idSize {
			return text, nil
		}
	}
	return "", fmt.Errorf("%w: no ID of %v", ErrPASERK, p)
}

// pie seals b under a wrapping key (PASERK, "PASERK-Wrap: pie").
func pie(header string, wrapping SymmetricKey, nonce [32]byte, b []byte) string {
	encryption, counter, authentication := wrapping.pieKeys(nonce[:])
	c := xor(encryption, counter, b)
	tag := keyed(tagSize, authentication, header, string(nonce[:]), string(c))
	return header + encode(bytes.Join([][]byte{tag, nonce[:], c}, nil))
}

func (k SymmetricKey) pieKeys(nonce []byte) (encryption, counter, authentication []byte) {
	x := keyed(56, k.b[:], "\x80", string(nonce))
	return x[:32], x[32:], keyed(32, k.b[:], "\x81", string(nonce))
}

func unpie(header string, wrapping SymmetricKey, b []byte) ([]byte, error) {
	if len(b) < tagSize+32 {
		return nil, fmt.Errorf("%w: too short", ErrPASERK)
	}
	tag, nonce, c := b[:tagSize], b[tagSize:tagSize+32], b[tagSize+32:]
	encryption, counter, authentication := wrapping.pieKeys(nonce)
	if subtle.ConstantTimeCompare(keyed(tagSize, authentication, header, string(nonce), string(c)), tag) != 1 {
		return nil, ErrSeal
	}
	return xor(encryption, counter, c), nil
}

// sameVersion fails if the wrapping key has another version than the wrapped key, or if
// either of them is a zero key.
func (k SymmetricKey) sameVersion(p Protocol) error {
	if !k.protocol.Valid() || !p.Valid() || k.protocol.Version() != p.Version() {
		return fmt.Errorf("%w: wrapping key of another version", ErrKey)
	}
	return nil
}

func drawNonce() (n [32]byte) {
	_, _ = rand.Read(n[:]) // never returns an error
	return n
}

// Wrap seals k under a key of the same version: "k4.local-wrap.pie.…".
func (k SymmetricKey) Wrap(under SymmetricKey) (string, error) {
	if err := under.sameVersion(k.protocol); err != nil {
		return "", err
	}
	return pie(k.protocol.paserk("local-wrap.pie"), under, drawNonce(), k.b[:]), nil
}

// Wrap seals k under a key of the same version: "k4.secret-wrap.pie.…".
func (k SecretKey) Wrap(under SymmetricKey) (string, error) {
	if err := under.sameVersion(k.protocol); err != nil {
		return "", err
	}
	return pie(k.protocol.paserk("secret-wrap.pie"), under, drawNonce(), k.b[:]), nil
}

func unwrap(p Protocol, typ, text string, under SymmetricKey) ([]byte, error) {
	b, err := p.data(typ, text)
	if err != nil {
		return nil, err
	}
	if err := under.sameVersion(p); err != nil {
		return nil, err
	}
	return unpie(p.paserk(typ), under, b)
}

// UnwrapSymmetricKey opens what SymmetricKey.Wrap wrote.
func UnwrapSymmetricKey(p Protocol, text string, under SymmetricKey) (SymmetricKey, error) {
	b, err := unwrap(p, "local-wrap.pie", text, under)
	if err != nil {
		return SymmetricKey{}, err
	}
	return SymmetricKeyFrom(p, b)
}

// UnwrapSecretKey opens what SecretKey.Wrap wrote.
func UnwrapSecretKey(p Protocol, text string, under SymmetricKey) (SecretKey, error) {
	b, err := unwrap(p, "secret-wrap.pie", text, under)
	if err != nil {
		return SecretKey{}, err
	}
	return SecretKeyFrom(p, b)
}

// SealTo seals a symmetric key to whoever holds the secret of a public key of the
// same version: "k4.seal.…" (PASERK, "PKE").
func (k SymmetricKey) SealTo(to PublicKey) (string, error) {
	if !to.protocol.Valid() || !k.protocol.Valid() || to.protocol.Version() != k.protocol.Version() {
		return "", fmt.Errorf("%w: public key of another version", ErrKey)
	}
	point, err := new(edwards25519.Point).SetBytes(to.b[:])
	if err != nil || to.Weak() {
		return "", fmt.Errorf("%w: no public key to seal to", ErrKey)
	}
	// The keys have 32 bytes, so these calls fail only if X25519 is forbidden, in FIPS 140-only mode.
	theirs, err1 := ecdh.X25519().NewPublicKey(point.BytesMontgomery())
	ephemeral, err2 := ecdh.X25519().GenerateKey(nil)
	if err := errors.Join(err1, err2); err != nil {
		return "", fmt.Errorf("%w: k%d.seal: %w", ErrUnavailable, k.protocol.Version(), err)
	}
	shared, err := ephemeral.ECDH(theirs)
	if err != nil {
		return "", fmt.Errorf("%w: no public key to seal to", ErrKey)
	}
	header, epk := k.protocol.paserk("seal"), ephemeral.PublicKey().Bytes()
	encryption, counter, authentication := sealKeys(header, shared, epk, theirs.Bytes())
	c := xor(encryption, counter, k.b[:])
	tag := keyed(tagSize, authentication, header, string(epk), string(c))
	return header + encode(bytes.Join([][]byte{tag, epk, c}, nil)), nil
}

func sealKeys(header string, shared, epk, xpk []byte) (encryption, counter, authentication []byte) {
	all := []string{header, string(shared), string(epk), string(xpk)}
	encryption = keyed(32, nil, append([]string{"\x01"}, all...)...)
	authentication = keyed(32, nil, append([]string{"\x02"}, all...)...)
	return encryption, keyed(24, nil, string(epk), string(xpk)), authentication
}

// Unseal opens what SealTo wrote, for a local protocol of the same version.
func (k SecretKey) Unseal(p Protocol, text string) (SymmetricKey, error) {
	if !k.protocol.Valid() || !p.Valid() || k.protocol.Version() != p.Version() {
		return SymmetricKey{}, fmt.Errorf("%w: secret key of another version", ErrKey)
	}
	b, err := p.data("seal", text)
	if err != nil {
		return SymmetricKey{}, err
	}
	if len(b) != tagSize+32+SymmetricSize {
		return SymmetricKey{}, fmt.Errorf("%w: length", ErrPASERK)
	}
	tag, epk, c := b[:tagSize], b[tagSize:tagSize+32], b[tagSize+32:]
	// The X25519 key of an Ed25519 key is the start of SHA-512 of its seed; X25519
	// itself clamps it (RFC 7748, section 5).
	h := sha512.Sum512(k.b[:ed25519.SeedSize])
	mine, err := ecdh.X25519().NewPrivateKey(h[:32])
	theirs, err2 := ecdh.X25519().NewPublicKey(epk)
	if err := errors.Join(err, err2); err != nil { // as in SealTo
		return SymmetricKey{}, fmt.Errorf("%w: k%d.seal: %w", ErrUnavailable, p.Version(), err)
	}
	shared, err := mine.ECDH(theirs)
	if err != nil {
		return SymmetricKey{}, ErrSeal // a point of low order
	}
	header := p.paserk("seal")
	encryption, counter, authentication := sealKeys(header, shared, epk, mine.PublicKey().Bytes())
	if subtle.ConstantTimeCompare(keyed(tagSize, authentication, header, string(epk), string(c)), tag) != 1 {
		return SymmetricKey{}, ErrSeal
	}
	return SymmetricKeyFrom(p, xor(encryption, counter, c))
}
