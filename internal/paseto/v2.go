package paseto

import (
	"crypto/ed25519"
	"fmt"

	"github.com/o1egl/paseto/v2"
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
//   - what it returns beside an error is dropped, and its error texts with it.

func (k SymmetricKey) sealV2(payload, footer, implicit string) (token string, err error) {
	if implicit != "" {
		return "", errImplicit
	}
	err = guarded(func() error {
		token, err = paseto.NewV2().Encrypt(k.b[:], payload, footer)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: v2.local: not sealed", ErrKey)
	}
	return token, nil
}

func (k SymmetricKey) openV2(t Token, implicit string) ([]byte, error) {
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
		return "", fmt.Errorf("%w: v2.public: not sealed", ErrKey)
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
	if err := guarded(func() error { return open(&payload, &footer) }); err != nil {
		return nil, ErrSeal
	}
	if string(footer) != string(t.Footer()) {
		return nil, ErrSeal
	}
	return payload, nil
}

// guarded makes a panic of the library an error: it is not known to have one on
// what gets this far.
func guarded(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the v2 library panicked", ErrSeal)
		}
	}()
	return call()
}
