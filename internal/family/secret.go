package family

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/sealed"
)

// SecretPrefix starts a refresh secret: no key can have it.
const SecretPrefix = "fobrefresh"

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

// What is sealed under a secret, apart from each other.
const (
	purposeNext   = "fob next refresh secret"
	purposeAnswer = "fob refresh answer"
)

// draw draws the next secret of the family: its text, and its random part.
func (f *Family) draw() (text, random string) {
	drawn := keytext.NewSecret()
	random = string(drawn[:randomLen])
	return f.text(random), random
}

// text is the secret of a random part.
func (f *Family) text(random string) string {
	var secret [keytext.SecretLen]byte
	copy(secret[:], random)
	tag := f.tag(random)
	copy(secret[randomLen:], tag[:])
	return keytext.Format(SecretPrefix, f.ID, secret)
}

func (f *Family) tag(random string) (tag [tagLen]byte) {
	mac := hmac.New(sha256.New, []byte(f.tagKey))
	mac.Write([]byte(random))
	n := binary.BigEndian.Uint64(mac.Sum(nil))
	for i := range tag {
		tag[i] = tagDigits[n%uint64(len(tagDigits))]
		n /= uint64(len(tagDigits))
	}
	return tag
}

// IssuedOnce reports whether a text in the form of a key is, or was, a secret of the
// family. A text in another form is a programming error.
func (f *Family) IssuedOnce(presented string) bool {
	block := keytext.Block(presented)
	secret := block[1+keytext.IDLen:]
	tag := f.tag(string(secret[:randomLen]))
	return hmac.Equal(secret[randomLen:], tag[:])
}

func digest(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

// LinkOf is the place of the link of a secret that is answered again at an instant, or -1.
func (f *Family) LinkOf(presented string, ms int64) int {
	d := digest(presented)
	return slices.IndexFunc(f.links, func(l link) bool {
		return l.used == string(d[:usedLen]) && ms < l.until
	})
}

// Use exchanges the current secret, which was presented, for the next one and an access
// token. It may be answered with both again until an instant: not at all, if that is not
// after now.
func (f *Family) Use(presented, access string, now, until int64) (next string, err error) {
	next, random := f.draw()
	used := f.current
	f.current, f.answer = digest(next), ""
	// From the front, so that what is left still leads on from one to the other.
	for len(f.links) > 0 && (f.links[0].until <= now || len(f.links) >= maxLinks) {
		f.links = f.links[1:]
	}
	if until <= now {
		f.links = nil
		return next, nil
	}
	l := link{used: string(used[:usedLen]), until: until}
	if l.next, err = f.seal(presented, purposeNext, random); err != nil {
		return "", err
	}
	f.links = append(f.links, l)
	if f.answer, err = f.seal(next, purposeAnswer, access); err != nil {
		return "", err
	}
	return next, nil
}

// Newest follows the links from a secret that was used, whose link is at a place, to
// the current secret and the access token that was given with it. What cannot be opened on
// the way is errs.ErrCorrupt.
func (f *Family) Newest(presented string, at int) (secret, access string, err error) {
	secret = presented
	for _, l := range f.links[at:] {
		random, err := f.open(secret, purposeNext, l.next)
		if err != nil {
			return "", "", err
		}
		secret = f.text(random)
	}
	access, err = f.open(secret, purposeAnswer, f.answer)
	return secret, access, err
}

// seal encrypts text so that it takes a secret, of which the store has the digest only, to
// open it.
func (f *Family) seal(secret, purpose, text string) (string, error) {
	aead, err := sealed.Cipher([]byte(secret), f.ID[:], purpose)
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, []byte(text), f.ID[:])), nil
}

func (f *Family) open(secret, purpose, text string) (string, error) {
	aead, err := sealed.Cipher([]byte(secret), f.ID[:], purpose)
	if err != nil {
		return "", err
	}
	opened, err := aead.Open(nil, nil, []byte(text), f.ID[:])
	if err != nil {
		return "", fmt.Errorf("%w: sealed answer", errs.ErrCorrupt)
	}
	return string(opened), nil
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
