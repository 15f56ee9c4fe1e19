package importedhash_test

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/importedhash"
	"github.com/stretchr/testify/require"
)

// A hash as it stands in a table of another system is read, and kept in one spelling.
func TestSpellingsOfOtherSystems(t *testing.T) {
	const hex256 = "98e123b62f21b4370392087fa06fd84e88f0549ca7a3b6284e93992f5f74dd80"
	kept := map[string]string{
		"bcrypt django":                    "$2b$05$fobKeysAreImported/HeO.d6C2bA3CG7VtZy4tUJ5Qhc3DhQ/GJK",
		"bcrypt_sha256 django":             "bcrypt_sha256$$2b$05$fobKeysAreImported/HeOVmfTwOoHXQ00s7.AQY3xgK5oBoKQEqS",
		"bcrypt_sha256 django, a long key": "bcrypt_sha256$$2b$05$fobKeysAreImported/HeOIzs9czzDwdbiF4YI5v6Z8Kl1YWYamva",
		"argon2 django":                    "$argon2id$v=19$m=256,t=2,p=2$Zm9iSW1wb3J0ZWRTYWx0MQ$uc9zZCkOGa4ZBrTIOjQ/qA",
		"pbkdf2 passlib":                   "$pbkdf2-sha256$i=29000$+vv8/f7/Zm9iU2FsdC4uLg$sMG4R/2LWVS4QJOrd6K3v8LHHR2scV7Xoz726sU9vlA",
	}
	for _, v := range spellings(t) {
		t.Run(v.Name, func(t *testing.T) {
			h, err := importedhash.Parse(v.Hash)
			require.NoError(t, err, v.Origin)
			require.NoError(t, h.Usable())
			require.True(t, h.Verify(v.Secret), v.Origin)
			for _, wrong := range []string{"", v.Hash, h.Text(), v.Secret + "x", "x" + v.Secret, v.Secret[:len(v.Secret)-1], strings.ToUpper(v.Secret)} {
				require.False(t, h.Verify(wrong), "%q", wrong)
			}
			again, err := importedhash.Parse(h.Text())
			require.NoError(t, err)
			require.Equal(t, h.Text(), again.Text())
			require.True(t, again.Verify(v.Secret))
			if want, told := kept[v.Name]; told {
				require.Equal(t, want, h.Text())
			}
			_, plain := h.SHA256()
			require.Equal(t, strings.HasPrefix(v.Name, "sha256") && !strings.Contains(v.Hash, "fix$"), plain)
			if plain {
				require.Equal(t, hex256, h.Text())
			}
			require.Equal(t, !strings.HasPrefix(v.Name, "sha"), h.Slow())
		})
	}
}

// A digest of the wrong length, or with a mark that is not of its encoding, is none.
func TestADigestThatNoKeyCanHave(t *testing.T) {
	for _, name := range []string{"", "sha256:", "sha512:", "sha256$$", "sha512$$"} {
		for n := 30; n < 70; n++ {
			sum := make([]byte, n)
			sum[0] = 0xfb // a '-' or a '+' in base64
			for _, text := range []string{hex.EncodeToString(sum), base64.RawStdEncoding.EncodeToString(sum), base64.RawURLEncoding.EncodeToString(sum)} {
				_, err := importedhash.Parse(name + text)
				want := n == 32 && name != "sha512:" && name != "sha512$$" || n == 64 && name != "sha256:" && name != "sha256$$"
				require.Equal(t, want, err == nil, "%s%s", name, text)
			}
		}
	}
	sum := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for _, text := range []string{
		"sha256:" + sum + "\n", sum + "\n", sum[:42] + "B", "+-" + sum[2:], sum + "==", "sha256:", "sha256$$", "sha256", "sha1:" + sum,
		"md5$$" + sum, "sha256:sha256:" + sum, "sha256$" + sum, "sha256$salt$" + sum, " " + sum, "\\x" + strings.Repeat("ab", 32),
		"bcrypt$", "bcrypt$$2b", "bcrypt$2b$05$fobKeysAreImported/HeO.d6C2bA3CG7VtZy4tUJ5Qhc3DhQ/GJK",
		"bcrypt_sha256$2b$05$fobKeysAreImported/HeOVmfTwOoHXQ00s7.AQY3xgK5oBoKQEqS",
		"bcrypt_sha256$$2y$05$fobKeysAreImported/HeOVmfTwOoHXQ00s7.AQY3xgK5oBoKQEqS",
		"$bcrypt_sha256$$2b$05$fobKeysAreImported/HeOVmfTwOoHXQ00s7.AQY3xgK5oBoKQEqS",
		"argon2$", "argon2$argon2i$v=19$m=256,t=2,p=2$Zm9iSW1wb3J0ZWRTYWx0MQ$uc9zZCkOGa4ZBrTIOjQ/qA",
		"$pbkdf2-sha256$29000$.vv8/f7/Zm9iU2FsdC4uLg$sMG4R/2LWVS4QJOrd6K3v8LHHR2scV7Xoz726sU9vl", // cut
		"$pbkdf2-sha512$29000$.vv8/f7/Zm9iU2FsdC4uLg$sMG4R/2LWVS4QJOrd6K3v8LHHR2scV7Xoz726sU9vlA",
		"$pbkdf2-sha256$029000$.vv8/f7/Zm9iU2FsdC4uLg$sMG4R/2LWVS4QJOrd6K3v8LHHR2scV7Xoz726sU9vlA",
		"$pbkdf2-sha256$i=29000$.vv8/f7/Zm9iU2FsdC4uLg$sMG4R/2LWVS4QJOrd6K3v8LHHR2scV7Xoz726sU9vlA", // a '.' is of passlib
	} {
		_, err := importedhash.Parse(text)
		require.ErrorIs(t, err, importedhash.ErrFormat, "%q", text)
	}
}

// What is not read is refused with a word on what to write or to do instead.
func TestARefusalSaysWhatToDo(t *testing.T) {
	const (
		pbkdf2 = "$pbkdf2-sha256$i=<rounds>$<salt>$<digest>"
		digest = "Config.Imported.Digest"
		reveal = "import such a key by its text"
	)
	for text, want := range map[string]string{
		"2b3668e11cb82d3af8c6e4524fc7841297668f5008d1626f0ad3417e9fa39af84c268248b78c481daa7e5dc437784003494f": pbkdf2, // Gitea's own
		"pbkdf2$320000$50$aaaaaaaaaa$ab48d5": pbkdf2, "pbkdf2:sha256:600000$salt$ab12": pbkdf2, "$pbkdf2-sha256$x": pbkdf2, "pbkdf2_sha256$x": "pbkdf2_sha256$<rounds>",
		"pbkdf2_sha512$1$x$y": "$pbkdf2-sha512$", "pbkdf2_sha1$1$x$y": reveal, "$pbkdf2$1$x$y": reveal,
		strings.Repeat("a1", 16): digest, strings.Repeat("A1", 20): digest, strings.Repeat("a1", 28): digest, strings.Repeat("a1", 48): digest,
		strings.Repeat("g", 40): "64 hex digits", "": "64 hex digits", "f00": "64 hex digits", "a$b": "the guide for imports",
		"argon2$argon2i$v=19$m=8": "argon2i and argon2d", "$argon2d$v=19": reveal, "argon2$argon2id$": "p=<lanes>", "$argon2id$v=16$": "v=19",
		"$2x$05$abc": "older bcrypt", "$2b$05$abc": "60 characters", "bcrypt$$2b$05": "60 characters", "bcrypt_sha256$$2b$": "60 characters", "$bcrypt-sha256$v=2": reveal,
		"$sha512$middle$": "$sha256$suffix$", "$sha256$x": "$sha256$prefix$", "sha256$salt$ab": "$sha256$prefix$", "sha512:ab": "128", "SHA256:ab": "64 hex digits",
		"$1$salt$x": reveal, "$5$x": reveal, "$6$x": reveal, "$7$x": reveal, "$y$x": reveal, "$scrypt$ln=1": reveal, "scrypt$x": reveal, "$apr1$x": reveal,
		"{SSHA256}abcd": "LDAP", strings.Repeat("$", 2000): "no hash is so long",
	} {
		h, err := importedhash.Parse(text)
		require.ErrorIs(t, err, importedhash.ErrFormat, "%q", text)
		require.ErrorContains(t, err, want, "%q", text)
		require.Empty(t, h.Text())
	}
	_, err := importedhash.Parse("$2b$16$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6")
	require.EqualError(t, err, "imported hash: costs too much or too little to check (bcrypt: cost 4 to 15; PBKDF2: 1 to 5000000 rounds; "+
		"argon2id: up to 256 MiB, 16 passes, 16 lanes): import such a key by its text, or issue a new one")
}

// The hash of nothing stands in a table where a key was never set. No key has it.
func TestTheHashOfNothing(t *testing.T) {
	for _, text := range []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
		"cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
		"$sha256$prefix$AAECAwQFBgcICQoLDA0ODw$vkXLJgW/Nr695oSEGijw/UPGmFCj3OX+26aZKO46iZE",
	} {
		h, err := importedhash.Parse(text)
		require.NoError(t, err)
		require.ErrorIs(t, h.Usable(), importedhash.ErrEmpty, text)
	}
}
