package paseto

// SealV4With seals with a nonce of the caller's, for vectors.
func SealV4With(k SymmetricKey, nonce [32]byte, payload, footer, implicit string) string {
	return k.sealV4(nonce, payload, footer, implicit)
}

// Bytes is the material of a key.
func Bytes(k any) []byte {
	switch k := k.(type) {
	case SymmetricKey:
		return k.b[:]
	case SecretKey:
		return k.b[:]
	case PublicKey:
		return k.b[:]
	}
	return nil
}
