package fob

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fobkit/fob/internal/keytext"
)

// A refresh secret has the text form of a key. Of its 32 characters the first 22 are
// random (130 bits); the others are a tag over them, under a key that the record of its
// family holds. By the tag every secret that the family ever had is known for one, for
// as long as the record lasts and without a list of them: what has it and is not the
// current one was used. What has it not was made up, by somebody who knows the ID of the
// family, which each of its tokens tells; it must not end a session.
//
// Whoever reads the store can make tags, and so end a family. A secret that is accepted
// nobody can make: of that the store has the digest, and the 130 bits it does not.
const (
	// refreshPrefix starts a refresh secret: no key can have it.
	refreshPrefix = "fobrefresh"

	randomLen = 22
	tagLen    = keytext.SecretLen - randomLen
	tagKeyLen = 16
	tagDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// maxLinks bounds the secrets of a family that are answered again at one time. A family
// that is refreshed more often than that within TokenConfig.RefreshGrace answers the
// latest of them; an older one is taken for a copy.
const maxLinks = 32

// link leads from a secret that was used to the one that it was exchanged for. The
// latter is sealed under the former, of which the store has a digest only. Whoever has
// a secret that was used lately goes from link to link up to the current one.
type link struct {
	used  string // the beginning of the digest of the secret that was used
	until int64  // before this instant it is answered again; Unix milliseconds
	next  string // the random part of the next secret, sealed
}

const (
	usedLen = 8
	nextLen = 12 + randomLen + 16 // with the nonce and the tag of AES-GCM
	linkLen = usedLen + 8 + nextLen
)

func newTagKey() string {
	var key [tagKeyLen]byte
	_, _ = rand.Read(key[:]) // never returns an error (crypto/rand)
	return string(key[:])
}

// drawSecret draws the next secret of the family: its text, and its random part.
func (f *family) drawSecret() (text, random string) {
	drawn := keytext.NewSecret()
	random = string(drawn[:randomLen])
	return f.secretText(random), random
}

func (f *family) secretText(random string) string {
	var secret [keytext.SecretLen]byte
	copy(secret[:], random)
	tag := f.tag(random)
	copy(secret[randomLen:], tag[:])
	return keytext.Format(refreshPrefix, f.id, secret)
}

func (f *family) tag(random string) (tag [tagLen]byte) {
	mac := hmac.New(sha256.New, []byte(f.tagKey))
	mac.Write([]byte(random))
	n := binary.BigEndian.Uint64(mac.Sum(nil))
	for i := range tag {
		tag[i] = tagDigits[n%uint64(len(tagDigits))]
		n /= uint64(len(tagDigits))
	}
	return tag
}

// issuedOnce reports whether a sound text is, or was, a secret of the family.
func (f *family) issuedOnce(presented string) bool {
	block := keytext.Block(presented)
	secret := block[1+keytext.IDLen:]
	tag := f.tag(string(secret[:randomLen]))
	return hmac.Equal(secret[randomLen:], tag[:])
}

func refreshDigest(text string) Digest { return digestOf([]byte(text)) }

// linkOf is the place of the link of a secret that is answered again at an instant, or -1.
func (f *family) linkOf(d Digest, ms int64) int {
	return slices.IndexFunc(f.links, func(l link) bool {
		return l.used == string(d.sum[:usedLen]) && ms < l.until
	})
}

// use notes that the current secret was exchanged for next and an access token, which
// it may be answered with again until an instant: not at all, if that is not after now.
func (f *family) use(presented, next, random, access string, now, until int64) error {
	used := f.current
	f.current, f.answer = refreshDigest(next), ""
	// From the front, so that what is left still leads on from one to the other.
	for len(f.links) > 0 && (f.links[0].until <= now || len(f.links) >= maxLinks) {
		f.links = f.links[1:]
	}
	if until <= now {
		f.links = nil
		return nil
	}
	sealed, err := sealRefresh(presented, f.id, "fob next refresh secret", random)
	if err != nil {
		return err
	}
	f.links = append(f.links, link{used: string(used.sum[:usedLen]), until: until, next: sealed})
	f.answer, err = sealRefresh(next, f.id, "fob refresh answer", access)
	return err
}

// newest follows the links from a secret that was used, whose link is at a place, to
// the current secret and the access token that was given with it.
func (f *family) newest(presented string, at int) (secret, access string, err error) {
	secret = presented
	for _, l := range f.links[at:] {
		random, err := openRefresh(secret, f.id, "fob next refresh secret", l.next)
		if err != nil {
			return "", "", err
		}
		secret = f.secretText(random)
	}
	access, err = openRefresh(secret, f.id, "fob refresh answer", f.answer)
	return secret, access, err
}

func encodeLinks(links []link) string {
	b := make([]byte, 0, len(links)*linkLen)
	for _, l := range links {
		b = append(b, l.used...)
		b = binary.BigEndian.AppendUint64(b, uint64(l.until))
		b = append(b, l.next...)
	}
	return string(b)
}

func decodeLinks(text string) (links []link, ok bool) {
	if len(text)%linkLen != 0 || len(text) > maxLinks*linkLen {
		return nil, false
	}
	for ; text != ""; text = text[linkLen:] {
		until := int64(binary.BigEndian.Uint64([]byte(text[usedLen : usedLen+8])))
		links = append(links, link{used: text[:usedLen], until: until, next: text[usedLen+8 : linkLen]})
	}
	return links, true
}

// sealRefresh encrypts text so that it takes a secret, of which the store has the
// digest only, to open it.
func sealRefresh(secret string, id ID, purpose, text string) (string, error) {
	aead, err := derivedCipher([]byte(secret), id[:], purpose)
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, []byte(text), id[:])), nil
}

func openRefresh(secret string, id ID, purpose, sealed string) (string, error) {
	aead, err := derivedCipher([]byte(secret), id[:], purpose)
	if err != nil {
		return "", err
	}
	text, err := aead.Open(nil, nil, []byte(sealed), id[:])
	if err != nil {
		return "", fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	return string(text), nil
}
