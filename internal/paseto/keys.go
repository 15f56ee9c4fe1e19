package paseto

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"filippo.io/edwards25519"
)

// The sizes of keys in bytes.
const (
	SymmetricSize = 32
	SecretSize    = ed25519.PrivateKeySize
	PublicSize    = ed25519.PublicKeySize
)

// SymmetricKey seals and opens local tokens of one version. The zero
// SymmetricKey does neither.
type SymmetricKey struct {
	protocol Protocol
	b        [SymmetricSize]byte
}

// SecretKey seals public tokens of one version. The zero SecretKey does not.
type SecretKey struct {
	protocol Protocol
	b        [SecretSize]byte // the seed, then the public key
}

// PublicKey opens public tokens of one version. The zero PublicKey does not.
type PublicKey struct {
	protocol Protocol
	b        [PublicSize]byte
}

// Opener opens tokens of one protocol: a SymmetricKey or a PublicKey.
type Opener interface {
	// Protocol is that of the tokens it opens.
	Protocol() Protocol
	// ID is the PASERK ID of the key.
	ID() string
	// Open returns the payload of t. It fails with ErrProtocol if t is of another protocol
	// than the key, and with ErrSeal if t was not sealed with this key and the same
	// implicit assertion. Version 2 has no implicit assertion, so implicit must be ""
	// there. Open fails with ErrUnavailable if this process cannot find that out.
	Open(t Token, implicit string) (payload []byte, err error)
}

// Sealer seals tokens of one protocol: a SymmetricKey or a SecretKey.
type Sealer interface {
	// Protocol is that of the tokens it seals.
	Protocol() Protocol
	// Seal returns the token of a payload. Everybody can read the footer, and nobody can
	// change it; "" means that there is none.
	Seal(payload, footer, implicit string) (string, error)
}

var (
	_ Opener = SymmetricKey{}
	_ Sealer = SymmetricKey{}
	_ Sealer = SecretKey{}
	_ Opener = PublicKey{}
)

// checkPrimitives fails with ErrUnavailable if the mode of the process forbids BLAKE2b or
// XChaCha20. So whoever makes a key gets an error, and whoever uses one gets no panic. No
// mode of today forbids them.
func checkPrimitives() error {
	return guarded(func() error {
		var key [SymmetricSize]byte
		xor(key[:], keyed[string](24, key[:]), nil)
		return nil
	})
}

// NewSymmetricKey draws a key for V4Local or V2Local.
func NewSymmetricKey(p Protocol) (SymmetricKey, error) {
	var b [SymmetricSize]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return SymmetricKeyFrom(p, b[:])
}

// SymmetricKeyFrom copies the 32 bytes of a key.
func SymmetricKeyFrom(p Protocol, b []byte) (SymmetricKey, error) {
	if !p.Valid() || !p.Local() || len(b) != SymmetricSize {
		return SymmetricKey{}, fmt.Errorf("%w: symmetric key of %d bytes for %v", ErrKey, len(b), p)
	}
	if err := checkPrimitives(); err != nil {
		return SymmetricKey{}, err
	}
	return SymmetricKey{protocol: p, b: [SymmetricSize]byte(b)}, nil
}

// NewSecretKey draws a key for V4Public or V2Public.
func NewSecretKey(p Protocol) (SecretKey, error) {
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		return SecretKey{}, fmt.Errorf("paseto: draw a key: %w", err)
	}
	return SecretKeyFrom(p, priv)
}

// SecretKeyFrom copies the 64 bytes of a key: a seed and its public key. It refuses a
// public key that does not belong to the seed, because signing with such a pair would
// reveal the secret.
func SecretKeyFrom(p Protocol, b []byte) (SecretKey, error) {
	if !p.Valid() || p.Local() || len(b) != SecretSize {
		return SecretKey{}, fmt.Errorf("%w: secret key of %d bytes for %v", ErrKey, len(b), p)
	}
	if err := checkPrimitives(); err != nil {
		return SecretKey{}, err
	}
	if subtle.ConstantTimeCompare(ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]), b) != 1 {
		return SecretKey{}, fmt.Errorf("%w: its public half does not belong to it", ErrKey)
	}
	return SecretKey{protocol: p, b: [SecretSize]byte(b)}, nil
}

// PublicKeyFrom copies the 32 bytes of a public key.
func PublicKeyFrom(p Protocol, b []byte) (PublicKey, error) {
	if !p.Valid() || p.Local() || len(b) != PublicSize {
		return PublicKey{}, fmt.Errorf("%w: public key of %d bytes for %v", ErrKey, len(b), p)
	}
	if err := checkPrimitives(); err != nil {
		return PublicKey{}, err
	}
	return PublicKey{protocol: p, b: [PublicSize]byte(b)}, nil
}

// Protocol implements Sealer and Opener.
func (k SymmetricKey) Protocol() Protocol { return k.protocol }

// Protocol implements Sealer.
func (k SecretKey) Protocol() Protocol { return k.protocol }

// Protocol implements Opener.
func (k PublicKey) Protocol() Protocol { return k.protocol }

// Public returns the key that opens what k seals.
func (k SecretKey) Public() PublicKey {
	return PublicKey{protocol: k.protocol, b: [PublicSize]byte(k.b[ed25519.SeedSize:])}
}

// Weak reports whether the key is all zero, which is a key that everybody has.
func (k SymmetricKey) Weak() bool { return k.b == [SymmetricSize]byte{} }

// Weak reports whether the key is no point of the curve, or one of the eight points for
// which anybody can make signatures.
func (k PublicKey) Weak() bool {
	p, err := new(edwards25519.Point).SetBytes(k.b[:])
	return err != nil || p.MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1
}

const redacted = "paseto key [redacted]"

// Format shows nothing of the key, for every verb.
func (k SymmetricKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// Format shows nothing of the key, for every verb.
func (k SecretKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// Format writes the key's ID, for every verb.
func (k PublicKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.ID())) }

// MarshalText refuses: a key is exported by name, with PASERK.
func (k SymmetricKey) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("%w: not to be marshalled", ErrKey)
}

// MarshalText refuses: a key is exported by name, with PASERK.
func (k SecretKey) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("%w: not to be marshalled", ErrKey)
}
