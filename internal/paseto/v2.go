package paseto

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/o1egl/paseto/v2"
	"golang.org/x/crypto/chacha20poly1305"
)

// Version 2 uses github.com/o1egl/paseto. The cryptography of that library passes the
// official vectors. Its API is used with care, for these reasons:
//
//   - only Sign, Verify, Encrypt and Decrypt of V2 are called, because its Parse chooses the
//     algorithm by the token, and takes a missing key for an empty one;
//   - a token has passed Parse of this package before, because the decoder of the library accepts
//     several spellings of one token;
//   - the length of keys is checked before, because the library panics at a wrong one;
//   - payload and footer are passed in as strings, because the library writes into the spare room of
//     a []byte, and writes a nil one as "null"; they are returned in fresh slices, because the library
//     appends to what it is given;
//   - what it returns together with an error is dropped, and so are the texts of its errors;
//   - only its two errors about a seal say that a token is bad. After any other error, and after a
//     panic, nothing is known of the token.

// aeadUsable fails with ErrUnavailable if this process may not use the cipher of V2Local.
// The library reports that with the same error as a wrong token, so it is checked here.
func aeadUsable(key []byte) error {
	if _, err := chacha20poly1305.NewX(key); err != nil {
		return fmt.Errorf("%w: v2.local: %w", ErrUnavailable, err) // names a rule, no value
	}
	return nil
}

func (k SymmetricKey) sealV2(payload, footer, implicit string) (token string, err error) {
	if implicit != "" {
		return "", errImplicit
	}
	if err := aeadUsable(k.b[:]); err != nil {
		return "", err
	}
	err = guarded(func() error {
		token, err = paseto.NewV2().Encrypt(k.b[:], payload, footer)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: v2.local: not sealed", ErrUnavailable)
	}
	return token, nil
}

func (k SymmetricKey) openV2(t Token, implicit string) ([]byte, error) {
	if err := aeadUsable(k.b[:]); err != nil {
		return nil, err
	}
	return openV2(t, implicit, func(payload, footer *[]byte) error {
		return paseto.NewV2().Decrypt(t.text, k.b[:], payload, footer)
	})
}

func (k SecretKey) sealV2(payload, footer, implicit string) (token string, err error) {
	if implicit != "" {
		return "", errImplicit
	}
	err = guarded(func() error {
		token, err = paseto.NewV2().Sign(ed25519.PrivateKey(k.b[:]), payload, footer)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: v2.public: not sealed", ErrUnavailable)
	}
	return token, nil
}

func (k PublicKey) openV2(t Token, implicit string) ([]byte, error) {
	return openV2(t, implicit, func(payload, footer *[]byte) error {
		return paseto.NewV2().Verify(t.text, ed25519.PublicKey(k.b[:]), payload, footer)
	})
}

// errImplicit refuses an implicit assertion, because version 2 would ignore it.
var errImplicit = fmt.Errorf("%w: version 2 has no implicit assertion", ErrKey)

func openV2(t Token, implicit string, open func(payload, footer *[]byte) error) ([]byte, error) {
	if implicit != "" {
		return nil, errImplicit
	}
	var payload, footer []byte
	err := guarded(func() error { return open(&payload, &footer) })
	switch {
	case errors.Is(err, paseto.ErrInvalidTokenAuth), errors.Is(err, paseto.ErrInvalidSignature):
		return nil, ErrSeal
	case err != nil:
		return nil, fmt.Errorf("%w: version 2: not opened", ErrUnavailable)
	}
	if string(footer) != string(t.Footer()) {
		return nil, ErrSeal
	}
	return payload, nil
}

// guarded turns a panic of a cryptographic primitive into an error. No panic is known for
// what gets this far, but the next release may forbid a primitive in some mode of the
// process.
func guarded(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: panic", ErrUnavailable)
		}
	}()
	return call()
}
