package paseto

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/o1egl/paseto/v2"
	"golang.org/x/crypto/chacha20poly1305"
)

// Version 2, through github.com/o1egl/paseto. Its cryptography passes the
// official vectors; its edges are closed from here:
//
//   - only Sign, Verify, Encrypt and Decrypt of V2 are called (its Parse chooses
//     the algorithm by the token, and takes a missing key for an empty one);
//   - a token has passed Parse of this package, so that no second spelling of it
//     gets through the lax decoder;
//   - keys have been measured, or it would panic;
//   - payload and footer go in as strings (it writes into spare room of a []byte,
//     and writes a nil as "null"), and come out into fresh ones (it appends);
//   - what it returns beside an error is dropped, and its error texts with it;
//   - only its two errors about a seal say that a token is bad: with any other, and
//     with a panic, nothing is known of the token.

// aeadUsable tells what the library says in the same words as of a wrong token: that
// this process may not use its cipher.
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

// errImplicit: version 2 would drop the assertion without a word.
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

// guarded makes a panic of a primitive an error. None is known on what gets this far,
// but a process's mode may forbid a primitive from one release of it to the next.
func guarded(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: panic", ErrUnavailable)
		}
	}()
	return call()
}
