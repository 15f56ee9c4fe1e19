package fob_test

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// row is a row in the table of another product, and the key that it is of.
type row struct {
	Product string            // as the table in docs/importing.md names it
	Origin  string            // what has made the hash
	Key     string            // what the client presents
	Columns map[string]string // of the product's own table
}

// until returns the locator of keys in which it stands before a separator.
func until(separator string) func(string) (string, bool) {
	return func(presented string) (string, bool) {
		locator, _, ok := strings.Cut(presented, separator)
		return locator, ok
	}
}

// first returns the locator of keys that begin with it.
func first(n int) func(string) (string, bool) {
	return func(presented string) (string, bool) { return presented[:min(n, len(presented))], len(presented) > n }
}

// asPBKDF2 writes the hash of a product that keeps the salt beside it: salt is the bytes of
// the salt, digest is hex.
func asPBKDF2(rounds string, salt []byte, digest string) string {
	made, _ := hex.DecodeString(digest)
	b64 := base64.RawStdEncoding.EncodeToString
	return "$pbkdf2-sha256$i=" + rounds + "$" + b64(salt) + "$" + b64(made)
}

// unhex reads hex digits in small letters; it returns nothing for any other text.
func unhex(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(b) != text {
		return nil
	}
	return b
}

// encodePassword is what Grafana makes of a secret and a salt.
func encodePassword(secret, salt string) []byte {
	made, err := pbkdf2.Key(sha256.New, secret, []byte(salt), 10_000, 50)
	if err != nil {
		return nil
	}
	return made
}

// serviceAccountToken is the digest of a text like glsa_SECRET_CHECKSUM.
func serviceAccountToken(presented string) []byte {
	parts := strings.Split(presented, "_")
	if len(parts) != 3 || parts[0] != "glsa" || len(parts[1]) != 32 {
		return nil
	}
	sum := crc32.ChecksumIEEE([]byte("glsa_" + parts[1]))
	if want := hex.EncodeToString([]byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}); parts[2] != want {
		return nil // so a text of another form costs no PBKDF2
	}
	return encodePassword(parts[1], parts[2])
}

// grafanaKey is the digest of a text that is JSON in base64. Of the many texts that are read
// as the same JSON only the one that Grafana has made is the key.
func grafanaKey(presented string) []byte {
	var key struct {
		Key  string `json:"k"`
		Name string `json:"n"`
		Org  int64  `json:"id"`
	}
	text, err := base64.StdEncoding.DecodeString(presented)
	if err != nil || json.Unmarshal(text, &key) != nil || len(key.Key) != 32 {
		return nil
	}
	if made, err := json.Marshal(key); err != nil || base64.StdEncoding.EncodeToString(made) != presented {
		return nil
	}
	// The name and the organisation are in front, so that no other pair has this digest.
	sum := sha256.Sum256([]byte(fmt.Sprintf("%d %q %x", key.Org, key.Name, encodePassword(key.Key, key.Name))))
	return sum[:]
}

// A product is imported as docs/importing.md says: how its keys are recognised, and what is
// made of a row of its table.
var products = map[string]struct {
	keys fob.ImportedKeys
	of   func(c map[string]string) fob.ImportedKey
}{
	"Plain SHA-256 in hex": {fob.ImportedKeys{}, func(c map[string]string) fob.ImportedKey { return fob.ImportedKey{Hash: c["hash"]} }},
	"Plain SHA-256 in other spellings": {fob.ImportedKeys{}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["hash"]}
	}},
	"Hash of the secret part": {fob.ImportedKeys{Locate: until(".")}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["hash"], HashAfter: c["id"] + ".", Locator: c["id"]}
	}},
	"keypal": {fob.ImportedKeys{}, func(c map[string]string) fob.ImportedKey { return fob.ImportedKey{Hash: c["keyHash"]} }},
	"keypal with a salt": {fob.ImportedKeys{Digest: func(presented string) []byte {
		sum := sha256.Sum256([]byte(presented + "the-salt-of-keypal"))
		return sum[:]
	}}, func(c map[string]string) fob.ImportedKey { return fob.ImportedKey{Digest: unhex(c["keyHash"])} }},
	"better-auth": {fob.ImportedKeys{}, func(c map[string]string) fob.ImportedKey { return fob.ImportedKey{Hash: c["key"]} }},
	"Laravel Sanctum": {fob.ImportedKeys{Locate: until("|")}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["token"], HashAfter: c["id"] + "|", Locator: c["id"]}
	}},
	"django-rest-knox 5": {fob.ImportedKeys{Locate: first(15)}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["digest"], Locator: c["token_key"]}
	}},
	"django-rest-knox 4.2": {fob.ImportedKeys{Locate: first(8), Digest: func(presented string) []byte {
		token := unhex(presented)
		if token == nil {
			return nil
		}
		sum := sha512.Sum512(token)
		return sum[:]
	}}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Digest: unhex(c["digest"]), Locator: c["token_key"]}
	}},
	"djangorestframework-api-key 3": byPrefix, "Django PBKDF2PasswordHasher": byPrefix, "Django Argon2PasswordHasher": byPrefix,
	"Django BCryptSHA256PasswordHasher": byPrefix, "Django BCryptPasswordHasher": byPrefix,
	"passlib pbkdf2_sha256": byID, "passlib pbkdf2_sha512": byID, "passlib bcrypt, argon2": byID,
	"Gitea access token": {fob.ImportedKeys{Locate: func(presented string) (string, bool) {
		return presented[max(0, len(presented)-8):], len(presented) > 8
	}}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: asPBKDF2("10000", []byte(c["token_salt"]), c["token_hash"]), Locator: c["token_last_eight"]}
	}},
	"Gitea pbkdf2$320000$50": {fob.ImportedKeys{Locate: until(".")}, func(c map[string]string) fob.ImportedKey {
		rounds := strings.Split(c["passwd_hash_algo"], "$")[1]
		salt := []byte(c["salt"])
		if len(salt) != 10 { // the older ones are the text itself
			salt = unhex(c["salt"])
		}
		return fob.ImportedKey{Hash: asPBKDF2(rounds, salt, c["passwd"]), Locator: c["id"]}
	}},
	"Grafana service account token": {fob.ImportedKeys{Digest: serviceAccountToken}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Digest: unhex(c["key"])}
	}},
	"Grafana API key": {fob.ImportedKeys{Digest: grafanaKey}, func(c map[string]string) fob.ImportedKey {
		sum := sha256.Sum256([]byte(fmt.Sprintf("%s %q %s", c["org_id"], c["name"], c["key"])))
		return fob.ImportedKey{Digest: sum[:]}
	}},
}

type product = struct {
	keys fob.ImportedKeys
	of   func(c map[string]string) fob.ImportedKey
}

var (
	byPrefix = product{fob.ImportedKeys{Locate: until(".")}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["hashed_key"], Locator: c["prefix"]}
	}}
	byID = product{fob.ImportedKeys{Locate: until(".")}, func(c map[string]string) fob.ImportedKey {
		return fob.ImportedKey{Hash: c["hash"], Locator: c["id"]}
	}}
)

func importRows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("testdata/imports.json")
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var rows []row
	require.NoError(t, d.Decode(&rows))
	return rows
}

// A row of each product's table, whose hash that product or its algorithm has made, is
// imported: its key goes on working, and no text that is only like it.
func TestAKeyOfEachProductGoesOnWorking(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range importRows(t) {
		seen[r.Product] = true
		for _, peppers := range [][]fob.Pepper{nil, {{ID: "p1", Key: pepperText}}} {
			t.Run(r.Product, func(t *testing.T) {
				p, known := products[r.Product]
				require.True(t, known)
				store := memory.New()
				cfg := fob.Config{Imported: &p.keys, Peppers: peppers}
				cfg.Imported.SlowChecks = 2
				m := newManager(t, store, cfg)
				key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), Scopes: fob.Scopes{"a"}}, p.of(r.Columns))
				require.NoError(t, err, r.Origin)
				for _, wrong := range likeIt(r) {
					_, err := m.Verify(t.Context(), wrong)
					require.ErrorIs(t, err, fob.ErrRejected, "%q", wrong)
				}
				for range 2 {
					cred := mustVerify(t, m, r.Key)
					require.Equal(t, key.ID(), cred.ID())
					require.True(t, cred.Allows("a"))
				}
				m = newManager(t, store, cfg) // its hash is one made here by now
				for _, wrong := range likeIt(r) {
					_, err := m.Verify(t.Context(), wrong)
					require.ErrorIs(t, err, fob.ErrRejected, "%q", wrong)
				}
				mustVerify(t, m, r.Key)
				_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, p.of(r.Columns))
				require.ErrorIs(t, err, fob.ErrAlready)
				_, err = m.Revoke(t.Context(), key.ID(), "")
				require.NoError(t, err)
				mustReject(t, m, r.Key, fob.ErrRevoked)
			})
		}
	}
	require.Len(t, seen, len(products), "a product without a row")
}

// likeIt returns texts that are nearly the key of a row: with another locator, without it,
// with something more, and what stands in the table.
func likeIt(r row) []string {
	all := []string{
		r.Key + "x", "x" + r.Key, r.Key[:len(r.Key)-1], r.Key[1:], strings.ToUpper(r.Key), strings.ToUpper(r.Key[:2]) + "0" + r.Key[3:], "0" + r.Key,
		r.Key + "=", r.Key + r.Key,
	}
	for _, separator := range []string{".", "|", "_"} {
		if before, after, ok := strings.Cut(r.Key, separator); ok {
			all = append(all, after, separator+after, "other"+separator+after, "18"+separator+after, "017"+separator+after, before+separator+separator+after,
				strings.ToUpper(before)+separator+after, before+separator)
		}
	}
	for _, column := range r.Columns {
		all = append(all, column)
	}
	all = append(all, r.Key+"\n")
	for i, text := range all {
		if text == r.Key {
			all[i] = "another-text"
		}
	}
	return all
}

// The guide for imports has a row for each product, and no other.
func TestTheGuideForImportsNamesEachProduct(t *testing.T) {
	page, err := os.ReadFile("docs/importing.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(page), "\n## Product by product\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| \*\*(.+?)\*\* \|`).FindAllStringSubmatch(section, -1) {
		told[strings.ReplaceAll(m[1], "`", "")] = true
	}
	for _, r := range importRows(t) {
		require.True(t, told[r.Product], "no row for %q", r.Product)
		delete(told, r.Product)
	}
	require.Empty(t, told, "rows without a vector")
}

// Nobody is let in by the secret part of a key behind the locator of another, whoever was
// first: not before the keys were used, and not after it.
func TestASecretPartIsBoundToItsLocator(t *testing.T) {
	sum := func(text string) string { s := sha256.Sum256([]byte(text)); return hex.EncodeToString(s[:]) }
	cfg := fob.Config{Imported: &fob.ImportedKeys{Locate: until("|")}}
	m := newManager(t, memory.New(), cfg)
	keys := map[string]*fob.Key{}
	for id, secret := range map[string]string{"17": "first-secret", "18": "second-secret", "19": "first-secret"} { // two have the same
		key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("account-" + id)}, fob.ImportedKey{Hash: sum(secret), HashAfter: id + "|", Locator: id})
		require.NoError(t, err)
		keys[id] = key
	}
	for range 2 { // the second time each of the keys has a digest made here
		for _, wrong := range []string{"18|first-secret", "17|second-secret", "20|first-secret", "first-secret", "|first-secret", "17|18|second-secret", "17||first-secret", "017|first-secret"} {
			mustReject(t, m, wrong, fob.ErrUnknown)
		}
		for id, secret := range map[string]string{"17": "first-secret", "18": "second-secret", "19": "first-secret"} {
			require.Equal(t, keys[id].ID(), mustVerify(t, m, id+"|"+secret).ID())
		}
	}
	_, err := m.Revoke(t.Context(), keys["17"].ID(), "")
	require.NoError(t, err)
	mustReject(t, m, "17|first-secret", fob.ErrRevoked)
	mustVerify(t, m, "19|first-secret")
}
