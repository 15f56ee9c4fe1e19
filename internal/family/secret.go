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

// SecretPrefix is the prefix of every refresh secret. No key can have it.
const SecretPrefix = "fobrefresh"

// A refresh secret has the text form of a key. Of its 32 secret characters the first 22 are
// random (130 bits). The others are a tag of these 22, made with a key that is in the
// record of the family. By the tag every secret that the family ever issued is recognised,
// for as long as the record lasts, and without a list of the secrets. A text that has a
// right tag and is not the current secret was used before. A text that has a wrong tag was
// made up by somebody who knows the ID of the family, which is in each of its tokens; such
// a text must not end the session.
//
// Whoever reads the store can make tags, and so can end a family. But nobody can make a
// secret that is accepted: the store has the digest of that secret, and not its 130 random
// bits.
const (
	randomLen = 22
	tagLen    = keytext.SecretLen - randomLen
	tagKeyLen = 16
	tagDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// maxLinks is how many used secrets of a family can be answered again at one time. If a
// family is refreshed more often than that within TokenConfig.RefreshGrace, the latest of
// them are answered again; an older one is taken for a copy.
const maxLinks = 32

// link leads from a used secret to the one that it was exchanged for. That one is sealed
// under the used secret, of which the store has only a digest. Whoever has a secret that
// was used lately can follow the links from it up to the current secret.
type link struct {
	used  string // the first bytes of the digest of the used secret
	until int64  // the used secret is answered again before this instant; Unix milliseconds
	next  string // the random part of the next secret, sealed
}

const (
	usedLen = 8
	nextLen = 12 + randomLen + 16 // with the nonce and the tag of AES-GCM
	linkLen = usedLen + 8 + nextLen
)

// The purposes for which something is sealed under a secret. Each has a key of its own.
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

// text returns the text of the secret that has a random part.
func (f *Family) text(random string) string {
	var secret [keytext.SecretLen]byte
	copy(secret[:], random)
	tag := f.tag(random)
	copy(secret[randomLen:], tag[:])
	return keytext.Format(SecretPrefix, f.ID, secret)
}

// tag returns the tag of the random part of a secret.
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

// IssuedOnce reports whether a text in the form of a key is a secret that the family has
// issued, now or before. To call it with a text of another form is a programming error.
func (f *Family) IssuedOnce(presented string) bool {
	block := keytext.Block(presented)
	secret := block[1+keytext.IDLen:]
	tag := f.tag(string(secret[:randomLen]))
	return hmac.Equal(secret[randomLen:], tag[:])
}

func digest(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

// LinkOf returns the index of the link of a used secret that may be answered again at an
// instant, or -1.
func (f *Family) LinkOf(presented string, ms int64) int {
	d := digest(presented)
	return slices.IndexFunc(f.links, func(l link) bool {
		return l.used == string(d[:usedLen]) && ms < l.until
	})
}

// Use exchanges the current secret, which was presented, for the next secret and an access
// token. Before until, the presented secret may be answered again with both; it may not if
// until is not after now.
func (f *Family) Use(presented, access string, now, until int64) (next string, err error) {
	next, random := f.draw()
	used := f.current
	f.current, f.answer = digest(next), ""
	// The oldest links are dropped, so that each link that is left still leads to the next
	// one.
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

// Newest follows the links from a used secret, whose link has the index at, to the current
// secret and the access token that was given out with it. It fails with errs.ErrCorrupt if
// something on the way cannot be decrypted.
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

// seal encrypts a text under a secret, of which the store has only the digest.
func (f *Family) seal(secret, purpose, text string) (string, error) {
	aead, err := sealed.Cipher([]byte(secret), f.ID[:], purpose)
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, []byte(text), f.ID[:])), nil
}

// open decrypts what seal encrypted.
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
