// Package sealed encrypts parts of records so that only the holder of a secret can read
// them. It does not know what is encrypted, nor where it is stored.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Cipher returns AES-256-GCM under a key that is derived from a secret (HKDF, RFC 5869),
// for one purpose and one record, whose ID is the salt. The cipher draws a random nonce
// itself and puts it before the ciphertext; its methods take a nil nonce. Cipher fails if
// this process may not use one of these algorithms.
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
