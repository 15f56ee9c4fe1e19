package paseto

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/chacha20"
)

// Version 4 is implemented here, after its specification (paseto-spec, "Paseto Version 4").
// It does not use aidanwoods.dev/go-paseto, because that library parses the claims as well,
// and so costs several times what the cryptography costs. The tests of this package compare
// the results with those of that library. docs/decisions/0005 has figures.

const (
	nonceSize = 32
	tagSize   = 32
	sigSize   = ed25519.SignatureSize
)

// keyed returns the BLAKE2b hash of parts, with a size and a key.
func keyed[T string | []byte](size int, key []byte, parts ...T) []byte {
	h := newBlake(size, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func newBlake(size int, key []byte) hash.Hash {
	h, err := blake2b.New(size, key)
	if err != nil {
		panic(err) // sizes are constants here; if a mode forbids BLAKE2b, guarded makes an error of this panic
	}
	return h
}

// xor encrypts or decrypts src with XChaCha20, into a new slice.
func xor(key, nonce, src []byte) []byte {
	dst := bytes.Clone(src)
	xorInPlace(key, nonce, dst)
	return dst
}

func xorInPlace(key, nonce, text []byte) {
	c, err := chacha20.NewUnauthenticatedCipher(key, nonce)
	if err != nil {
		panic(err) // as in newBlake
	}
	c.XORKeyStream(text, text)
}

// What the keys of a token are derived for, and the header that its tag covers. They are
// slices so that no call copies them.
var (
	forEncryption     = []byte("paseto-encryption-key")
	forAuthentication = []byte("paseto-auth-key-for-aead")
	headerV4Local     = []byte(headers[V4Local])
)

// split derives the keys of one token from the key and the nonce of the token.
func (k SymmetricKey) split(nonce []byte) (encryption, counter, authentication []byte) {
	tmp := keyed(56, k.b[:], forEncryption, nonce)
	return tmp[:32], tmp[32:], keyed(32, k.b[:], forAuthentication, nonce)
}

// tag is the tag of a token: the hash of the pre-authentication encoding of its parts (see
// pae), which are hashed where they are.
func tag(authentication []byte, parts ...[]byte) []byte {
	h := newBlake(tagSize, authentication)
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(len(parts)))
	h.Write(number[:])
	for _, p := range parts {
		binary.LittleEndian.PutUint64(number[:], uint64(len(p)))
		h.Write(number[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

func (k SymmetricKey) sealV4(nonce [nonceSize]byte, payload, footer, implicit string) string {
	encryption, counter, authentication := k.split(nonce[:])
	body := append(nonce[:], payload...)
	c := body[nonceSize:]
	xorInPlace(encryption, counter, c)
	body = append(body, tag(authentication, headerV4Local, body[:nonceSize], c, []byte(footer), []byte(implicit))...)
	return write(V4Local, body, footer)
}

func (k SymmetricKey) openV4(t Token, implicit string) ([]byte, error) {
	body, err := base64.RawURLEncoding.DecodeString(t.body)
	if err != nil || len(body) < nonceSize+tagSize {
		return nil, ErrFormat
	}
	nonce, c, sealed := body[:nonceSize], body[nonceSize:len(body)-tagSize], body[len(body)-tagSize:]
	encryption, counter, authentication := k.split(nonce)
	if subtle.ConstantTimeCompare(tag(authentication, headerV4Local, nonce, c, t.Footer(), []byte(implicit)), sealed) != 1 {
		return nil, ErrSeal
	}
	xorInPlace(encryption, counter, c)
	return c, nil
}

func (k SecretKey) sealV4(payload, footer, implicit string) string {
	sig := ed25519.Sign(k.b[:], pae(headers[V4Public], payload, footer, implicit))
	return write(V4Public, append([]byte(payload), sig...), footer)
}

func (k PublicKey) openV4(t Token, implicit string) ([]byte, error) {
	body, err := base64.RawURLEncoding.DecodeString(t.body)
	if err != nil || len(body) < sigSize {
		return nil, ErrFormat
	}
	payload, sig := body[:len(body)-sigSize], body[len(body)-sigSize:]
	if !ed25519.Verify(k.b[:], pae(headers[V4Public], string(payload), string(t.Footer()), implicit), sig) {
		return nil, ErrSeal
	}
	return payload, nil
}

// Seal implements Sealer.
func (k SymmetricKey) Seal(payload, footer, implicit string) (token string, err error) {
	switch k.protocol {
	case V4Local:
		var nonce [nonceSize]byte
		_, _ = rand.Read(nonce[:]) // never returns an error
		err = guarded(func() error { token = k.sealV4(nonce, payload, footer, implicit); return nil })
		return token, err
	case V2Local:
		return k.sealV2(payload, footer, implicit)
	default:
		return "", fmt.Errorf("%w: zero key", ErrKey)
	}
}

// Open implements Opener.
func (k SymmetricKey) Open(t Token, implicit string) (payload []byte, err error) {
	if err := t.ofProtocol(k.protocol); err != nil {
		return nil, err
	}
	if k.protocol == V2Local {
		return k.openV2(t, implicit)
	}
	err = guarded(func() error { payload, err = k.openV4(t, implicit); return err })
	return payload, err
}

// Seal implements Sealer.
func (k SecretKey) Seal(payload, footer, implicit string) (token string, err error) {
	switch k.protocol {
	case V4Public:
		err = guarded(func() error { token = k.sealV4(payload, footer, implicit); return nil })
		return token, err
	case V2Public:
		return k.sealV2(payload, footer, implicit)
	default:
		return "", fmt.Errorf("%w: zero key", ErrKey)
	}
}

// Open implements Opener.
func (k PublicKey) Open(t Token, implicit string) (payload []byte, err error) {
	if err := t.ofProtocol(k.protocol); err != nil {
		return nil, err
	}
	if k.protocol == V2Public {
		return k.openV2(t, implicit)
	}
	err = guarded(func() error { payload, err = k.openV4(t, implicit); return err })
	return payload, err
}

// ofProtocol fails if the protocol of the token is not that of the key.
func (t Token) ofProtocol(key Protocol) error {
	switch {
	case !key.Valid():
		return fmt.Errorf("%w: zero key", ErrKey)
	case !t.protocol.Valid():
		return ErrFormat
	case t.protocol != key:
		return ErrProtocol
	}
	return nil
}
