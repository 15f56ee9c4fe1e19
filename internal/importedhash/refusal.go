package importedhash

import (
	"errors"
	"fmt"
	"strings"
)

// refusal returns the error of a text that is not read: err, and what can be done about it.
// Nothing of the text is in it.
func refusal(text string, err error) error {
	if errors.Is(err, ErrCost) {
		return fmt.Errorf("%w (bcrypt: cost 4 to %d; PBKDF2: 1 to %d rounds; argon2id: up to %d MiB, %d passes, %d lanes): "+
			"import such a key by its text, or issue a new one", err, maxBcrypt, maxIterations, maxMemory>>10, maxTime, maxThreads)
	}
	return fmt.Errorf("%w: %s", err, recipe(text))
}

const (
	asPBKDF2  = "$pbkdf2-sha256$i=<rounds>$<salt>$<digest>, salt and digest in base64 without padding"
	byDigest  = "compute it in Config.Imported.Digest, and import the bytes as ImportedKey.Digest"
	byText    = "there is no form for it: import such a key by its text, or issue a new one"
	asArgon2  = "write argon2id as $argon2id$v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<digest>, salt and digest in base64 without padding"
	asBcrypt  = "bcrypt has 60 characters, $2b$<cost>$ and 53 more (also $2a$, $2y$, and what Django writes in front)"
	asSalted  = "write $sha256$prefix$<salt>$<digest> for a salt before the key, $sha256$suffix$… for one after it (also $sha512$), salt and digest in base64 without padding"
	asDigest  = "SHA-256 has 64 hex digits or 43 characters of base64, SHA-512 has 128 or 86"
	asGitea   = "PBKDF2 with its salt beside it, as Gitea and Grafana store it: write " + asPBKDF2 + "; see the guide for imports"
	asUnknown = "the guide for imports lists the forms"
)

// recipes says, for how a text begins, what to write or to do instead. The first one that
// fits counts.
var recipes = []struct{ begin, recipe string }{
	{"pbkdf2$", asGitea},
	{"$pbkdf2-sha", "write PBKDF2 as " + asPBKDF2},
	{"pbkdf2_sha256$", "Django writes pbkdf2_sha256$<rounds>$<salt>$<digest>, the digest in base64 with padding; otherwise write " + asPBKDF2},
	{"pbkdf2_sha1$", "PBKDF2 with SHA-1: " + byText},
	{"$pbkdf2$", "PBKDF2 with SHA-1: " + byText},
	{"pbkdf2", "write PBKDF2 as " + asPBKDF2 + " (or $pbkdf2-sha512$…)"},
	{"$argon2id$", asArgon2},
	{"argon2$argon2id$", asArgon2},
	{"$argon2", "argon2i and argon2d: " + byText},
	{"argon2", "argon2i and argon2d: " + byText},
	{"$2a$", asBcrypt},
	{"$2b$", asBcrypt},
	{"$2y$", asBcrypt},
	{"bcrypt$", asBcrypt},
	{"bcrypt_sha256$", asBcrypt},
	{"$2", "a broken or older bcrypt: " + byText},
	{"$bcrypt-sha256$", "bcrypt over an HMAC, of passlib: " + byText},
	{"$sha256$", asSalted},
	{"$sha512$", asSalted},
	{"sha256", asDigest + "; with a salt " + asSalted},
	{"sha512", asDigest + "; with a salt " + asSalted},
	{"$5$", "SHA-256 of crypt(3): " + byText},
	{"$6$", "SHA-512 of crypt(3): " + byText},
	{"$scrypt$", "scrypt: " + byText},
	{"scrypt", "scrypt: " + byText},
	{"$7$", "scrypt: " + byText},
	{"$y$", "yescrypt: " + byText},
	{"$1$", "MD5 of crypt(3): " + byText},
	{"$apr1$", "MD5 of crypt(3): " + byText},
	{"{", "a hash of LDAP: take the bytes out of its base64; " + asSalted},
}

// digests names what has as many hex digits.
var digests = map[int]string{
	32:  "32 hex digits are MD5 or another digest of 128 bits: " + byDigest,
	40:  "40 hex digits are SHA-1: " + byDigest,
	56:  "56 hex digits are SHA-224: " + byDigest,
	96:  "96 hex digits are SHA-384: " + byDigest,
	100: "100 hex digits are " + asGitea,
}

func recipe(text string) string {
	if said, ok := digests[len(text)]; ok && strings.Trim(text, "0123456789abcdefABCDEF") == "" {
		return said
	}
	lower := strings.ToLower(text)
	for _, r := range recipes {
		if strings.HasPrefix(lower, r.begin) {
			return r.recipe
		}
	}
	if !strings.Contains(text, "$") {
		return asDigest
	}
	return asUnknown
}
