package importedhash

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// respell returns the text of a hash as this package writes it. A text that it does not know
// is returned as it is. The following spellings stand in tables of other systems:
//
//	sha256:<digest>, sha256$$<digest>             also sha512; drf-api-key writes sha512$$
//	<digest>                                      hex digits in capitals, or base64
//	bcrypt$$2b$…, argon2$argon2id$…               Django, which puts its own name in front
//	$pbkdf2-sha256$<n>$<salt>$<digest>            passlib, also -sha512
//
// A hash is stored in one spelling only, so that a hash that is imported once more in
// another spelling is recognised.
func respell(text string) string {
	for _, front := range []string{"bcrypt$$2", "argon2$argon2"} {
		if strings.HasPrefix(text, front) {
			_, rest, _ := strings.Cut(text, "$")
			return "$" + strings.TrimPrefix(rest, "$")
		}
	}
	if strings.HasPrefix(text, "$pbkdf2-sha") {
		return respellPasslib(text)
	}
	name, digest := "", text
	for _, front := range []string{"sha256:", "sha512:", "sha256$$", "sha512$$"} {
		if strings.EqualFold(text[:min(len(text), len(front))], front) {
			name, digest = front[:len("sha256")], text[len(front):]
		}
	}
	sum := digestBytes(digest)
	if name == "" && (len(sum) == sha256.Size || len(sum) == sha512.Size) ||
		name == "sha256" && len(sum) == sha256.Size || name == "sha512" && len(sum) == sha512.Size {
		return hex.EncodeToString(sum)
	}
	return text
}

// respellPasslib turns the form of passlib into the PHC string format: the iterations have no
// name there, and its base64 has a '.' in the place of '+'.
func respellPasslib(text string) string {
	parts := strings.Split(text, "$")
	size := sha256.Size
	if parts[1] == "pbkdf2-sha512" {
		size = sha512.Size
	}
	// passlib keeps the whole digest, so one of another length is none of it.
	if len(parts) != 5 || strings.HasPrefix(parts[2], "i=") || base64.RawStdEncoding.DecodedLen(len(parts[4])) != size {
		return text
	}
	salt, digest := strings.ReplaceAll(parts[3], ".", "+"), strings.ReplaceAll(parts[4], ".", "+")
	return "$" + parts[1] + "$i=" + parts[2] + "$" + salt + "$" + digest
}

// digestBytes decodes a digest in hex or in base64, of either alphabet, with or without
// padding. It returns nothing for any other text.
func digestBytes(text string) []byte {
	if sum, err := hex.DecodeString(text); err == nil {
		return sum
	}
	if strings.ContainsAny(text, "\r\n") { // which encoding/base64 passes over
		return nil
	}
	for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.StdEncoding} {
		if sum, err := enc.Strict().DecodeString(text); err == nil {
			return sum
		}
	}
	return nil
}
