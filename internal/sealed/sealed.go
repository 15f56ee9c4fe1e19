// Package sealed encrypts what a store keeps so that only whoever has a secret can read it.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Cipher is AES-256-GCM under a key made from a secret, for one purpose and one record,
// by whose ID it is salted (HKDF, RFC 5869). It puts a random nonce before what it seals,
// and takes none itself. It fails where this process may not use one of these algorithms.
func Cipher(secret, salt []byte, purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, salt, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("fob: derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("fob: cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("fob: cipher: %w", err)
	}
	return aead, nil
}
