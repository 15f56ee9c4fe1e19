package idempotency

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/sealed"
)

// Request is what a caller asked for, as it was asked. It holds no secret.
type Request struct {
	Subject, Name string
	SubjectKind   uint8  // the default one where none was asked for
	Scopes        string // separated by one space
	Tags          []string
	// NotBefore and ExpiresAt are in Unix milliseconds; zero is "not set".
	NotBefore, ExpiresAt int64
	TTL                  time.Duration
	DefaultPrefix        bool // no prefix was asked for
}

// digest tells one request from another under the same idempotency key. prefix is that of
// the key's text, which a request may leave to the configuration.
func (r *Request) digest(prefix string) [sha256.Size]byte {
	h := sha256.New()
	part := func(texts ...string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(texts)))
		h.Write(n[:])
		for _, t := range texts {
			binary.BigEndian.PutUint64(n[:], uint64(len(t)))
			h.Write(n[:])
			h.Write([]byte(t))
		}
	}
	number := func(n int64) { part(string(binary.BigEndian.AppendUint64(nil, uint64(n)))) }
	part(r.Subject, r.Name, prefix, r.Scopes)
	part(r.Tags...)
	number(int64(r.SubjectKind))
	number(r.NotBefore)
	number(r.ExpiresAt)
	number(int64(r.TTL))
	return [sha256.Size]byte(h.Sum(nil))
}

// seal encrypts the text of a key so that it takes the idempotency key, and the active
// pepper where there is one, to open it: neither is in the store. AES-256-GCM under a key
// of its own for each record (HKDF, RFC 5869).
func (i *Issuer) seal(key string, ref record.ID, text string) (string, error) {
	pepper := i.Peppers.Active()
	aead, err := i.cipher(key, pepper, ref)
	if err != nil {
		return "", err
	}
	out := append([]byte{byte(len(pepper))}, pepper...)
	return string(aead.Seal(out, nil, []byte(text), ref[:])), nil
}

// open is the reverse of seal. What it cannot open is errs.ErrCorrupt.
func (i *Issuer) open(key string, ref record.ID, answer string) (string, error) {
	n := 1 + int(answer[0])
	if len(answer) < n {
		return "", fmt.Errorf("%w: sealed answer", errs.ErrCorrupt)
	}
	pepper, box := answer[1:n], answer[n:]
	aead, err := i.cipher(key, pepper, ref)
	if err != nil {
		return "", err
	}
	text, err := aead.Open(nil, nil, []byte(box), ref[:])
	if err != nil {
		return "", fmt.Errorf("%w: sealed answer", errs.ErrCorrupt)
	}
	return string(text), nil
}

func (i *Issuer) cipher(key, pepper string, ref record.ID) (cipher.AEAD, error) {
	material := []byte(key)
	if pepper != "" {
		made, err := i.Peppers.Under(pepper, material)
		if err != nil {
			return nil, err
		}
		material = made[:]
	}
	return sealed.Cipher(material, ref[:], "fob idempotent answer")
}
