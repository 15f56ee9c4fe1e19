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

// Request is what a caller asked for, before defaults were filled in. It holds no secret.
type Request struct {
	Subject, Name string
	SubjectKind   uint8
	Scopes        string // separated by one space
	More          string // account, roles, grants, metadata and the key of the caller; "" if there are none
	Tags          []string
	// NotBefore and ExpiresAt are in Unix milliseconds; zero is "not set".
	NotBefore, ExpiresAt int64
	TTL                  time.Duration
	DefaultPrefix        bool // no prefix was asked for
}

// digest returns a digest by which two requests under the same idempotency key are told
// apart. prefix is that of the key's text, which a request may leave to the configuration.
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
	if r.More != "" {
		part(r.More)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// seal encrypts the text of a key. To decrypt it takes the idempotency key and, if there is
// one, the pepper that was active: neither is in the store. The cipher is AES-256-GCM,
// under a separate key for each record (HKDF, RFC 5869).
func (i *Issuer) seal(key string, ref record.ID, text string) (string, error) {
	pepper := i.Peppers.Active()
	aead, err := i.cipher(key, pepper, ref)
	if err != nil {
		return "", err
	}
	out := append([]byte{byte(len(pepper))}, pepper...)
	return string(aead.Seal(out, nil, []byte(text), ref[:])), nil
}

// open decrypts what seal encrypted. It fails with errs.ErrCorrupt if the answer cannot be
// decrypted.
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
