package importedhash_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fobkit/fob/internal/importedhash"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"
)

// vector is a hash that other software made, named by Origin.
type vector struct{ Name, Origin, Secret, Hash string }

func vectors(t testing.TB) []vector   { return read(t, "testdata/vectors.json") }
func spellings(t testing.TB) []vector { return read(t, "testdata/spellings.json") }

func read(t testing.TB, name string) []vector {
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	var vs []vector
	require.NoError(t, json.Unmarshal(text, &vs))
	require.NotEmpty(t, vs)
	return vs
}

func TestKnownAnswers(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			h, err := importedhash.Parse(v.Hash)
			require.NoError(t, err, v.Origin)
			want := v.Hash
			if _, plain := h.SHA256(); plain {
				want = strings.ToLower(want)
			}
			require.Equal(t, want, h.Text())
			require.NoError(t, emptyAside(v.Secret, h.Usable()))
			require.True(t, h.Verify(v.Secret), v.Origin)
			require.False(t, h.Verify(v.Secret+"x"), "a longer secret")
			require.False(t, h.Verify("x"+v.Secret), "another secret")
			require.False(t, h.Verify(v.Hash), "the stored hash is not the secret")
			if v.Secret != "" {
				require.False(t, h.Verify(v.Secret[:len(v.Secret)-1]), "a shorter secret")
				require.False(t, h.Verify(""), "no secret")
			}
		})
	}
}

// emptyAside is the error of Usable, but for the hash of an empty secret: that is refused,
// unless it is slow to see.
func emptyAside(secret string, err error) error {
	if secret == "" && errors.Is(err, importedhash.ErrEmpty) {
		return nil
	}
	return err
}

// TestBcryptBeyond72Bytes: bcrypt hashes the first 72 bytes only, and a secret
// that merely begins like the right one must not pass.
func TestBcryptBeyond72Bytes(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Name != "bcrypt 72 bytes" {
			continue
		}
		h, err := importedhash.Parse(v.Hash)
		require.NoError(t, err)
		require.Len(t, v.Secret, 72)
		require.True(t, h.Verify(v.Secret))
		require.False(t, h.Verify(v.Secret+"k"))
		return
	}
	t.Fatal("the vector is missing")
}

func TestParseRefuses(t *testing.T) {
	const (
		salt   = "AAECAwQFBgcICQoLDA0ODw"
		digest = "2DdbS5iXzuh0ZbCAAECAwQFBgcICQoLDA0ODw012345"
	)
	long := strings.Repeat("A", 88) // 66 bytes
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"nothing":                         {"", importedhash.ErrFormat},
		"too much":                        {"$2b$" + strings.Repeat("a", 2000), importedhash.ErrFormat},
		"63 hex digits":                   {strings.Repeat("a", 63), importedhash.ErrFormat},
		"64 letters":                      {strings.Repeat("g", 64), importedhash.ErrFormat},
		"MD5 crypt":                       {"$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/", importedhash.ErrFormat},
		"SHA-512 without a place":         {"$sha512$" + salt + "$" + digest, importedhash.ErrFormat},
		"SHA-512 in the middle":           {"$sha512$middle$" + salt + "$" + digest, importedhash.ErrFormat},
		"SHA-512 without a salt":          {"$sha512$prefix$$" + strings.Repeat("A", 86), importedhash.ErrFormat},
		"SHA-512 cut":                     {"$sha512$prefix$" + salt + "$" + strings.Repeat("A", 43), importedhash.ErrFormat},
		"SHA-512, padded":                 {"$sha512$prefix$" + salt + "==$" + strings.Repeat("A", 86), importedhash.ErrFormat},
		"bcrypt, cut":                     {"$2b$10$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpN", importedhash.ErrFormat},
		"bcrypt, too long":                {"$2b$10$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6a", importedhash.ErrFormat},
		"bcrypt, a letter of none":        {"$2b$10$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpN!6", importedhash.ErrFormat},
		"bcrypt, cost of no number":       {"$2b$xx$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6", importedhash.ErrFormat},
		"bcrypt, cost 16":                 {"$2b$16$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6", importedhash.ErrCost},
		"bcrypt 2x, the broken one":       {"$2x$10$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6", importedhash.ErrFormat},
		"PBKDF2, no iterations":           {"$pbkdf2-sha256$i=0$" + salt + "$" + digest, importedhash.ErrCost},
		"PBKDF2, too many iterations":     {"$pbkdf2-sha256$i=5000001$" + salt + "$" + digest, importedhash.ErrCost},
		"PBKDF2, more than 32 bits":       {"$pbkdf2-sha256$i=4294967297$" + salt + "$" + digest, importedhash.ErrFormat},
		"PBKDF2, a sign":                  {"$pbkdf2-sha256$i=+1000$" + salt + "$" + digest, importedhash.ErrFormat},
		"PBKDF2, leading zero":            {"$pbkdf2-sha256$i=01000$" + salt + "$" + digest, importedhash.ErrFormat},
		"PBKDF2, another name":            {"$pbkdf2-sha256$n=1000$" + salt + "$" + digest, importedhash.ErrFormat},
		"PBKDF2, a part too many":         {"$pbkdf2-sha256$i=1000$" + salt + "$" + digest + "$", importedhash.ErrFormat},
		"PBKDF2, short digest":            {"$pbkdf2-sha256$i=1000$" + salt + "$AAECAwQFBgcICQoLDA0O", importedhash.ErrFormat},
		"PBKDF2, long digest":             {"$pbkdf2-sha256$i=1000$" + salt + "$" + long, importedhash.ErrFormat},
		"PBKDF2, long salt":               {"$pbkdf2-sha256$i=1000$" + long + "$" + digest, importedhash.ErrFormat},
		"PBKDF2, a line break":            {"$pbkdf2-sha256$i=1000$" + salt + "\n$" + digest, importedhash.ErrFormat},
		"PBKDF2-SHA1":                     {"$pbkdf2$1000$" + salt + "$" + digest, importedhash.ErrFormat},
		"Django without a salt":           {"pbkdf2_sha256$1000$$UX3gezI7Df4BOyxUW2bfqHPQ4QAAAAAAAAAAAAAAAAA=", importedhash.ErrFormat},
		"Django, digest cut":              {"pbkdf2_sha256$1000$salt$UX3gezI7Df4BOyxU", importedhash.ErrFormat},
		"Django, too many iterations":     {"pbkdf2_sha256$90000000$salt$UX3gezI7Df4BOyxUW2bfqHPQ4QAAAAAAAAAAAAAAAAA=", importedhash.ErrCost},
		"argon2i":                         {"$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + digest, importedhash.ErrFormat},
		"argon2id of version 16":          {"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + digest, importedhash.ErrFormat},
		"argon2id, another order":         {"$argon2id$v=19$t=1,m=64,p=1$" + salt + "$" + digest, importedhash.ErrFormat},
		"argon2id, a parameter too many":  {"$argon2id$v=19$m=64,t=1,p=1,keyid=x$" + salt + "$" + digest, importedhash.ErrFormat},
		"argon2id, 257 MiB":               {"$argon2id$v=19$m=263168,t=1,p=1$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, 17 passes":             {"$argon2id$v=19$m=64,t=17,p=1$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, no passes":             {"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, no lanes":              {"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, 17 lanes":              {"$argon2id$v=19$m=640,t=1,p=17$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, 8 lanes in 63 KiB":     {"$argon2id$v=19$m=63,t=1,p=8$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, lanes beyond a byte":   {"$argon2id$v=19$m=4096,t=1,p=257$" + salt + "$" + digest, importedhash.ErrCost},
		"argon2id, trailing bits in salt": {"$argon2id$v=19$m=64,t=1,p=1$" + salt[:21] + "x$" + digest, importedhash.ErrFormat},
	} {
		h, err := importedhash.Parse(test.text)
		require.ErrorIs(t, err, test.want, name)
		if len(test.text) > 8 {
			require.NotContains(t, err.Error(), test.text[len(test.text)-8:], name)
		}
		require.False(t, h.Verify(""), name)
		require.False(t, h.Verify(test.text), name)
	}
}

func TestAHashIsNeverPrinted(t *testing.T) {
	for _, v := range vectors(t) {
		h, err := importedhash.Parse(v.Hash)
		require.NoError(t, err)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			require.Equal(t, "importedhash.Hash", fmt.Sprintf(verb, h))
		}
	}
}

func TestSlow(t *testing.T) {
	for _, v := range vectors(t) {
		h, err := importedhash.Parse(v.Hash)
		require.NoError(t, err)
		digest, plain := h.SHA256()
		require.Equal(t, strings.HasPrefix(v.Name, "sha256"), plain, v.Name)
		require.Equal(t, !strings.HasPrefix(v.Name, "sha"), h.Slow(), v.Name)
		if plain {
			require.Equal(t, strings.ToLower(v.Hash), fmt.Sprintf("%x", digest))
		}
	}
}

// slow is a hash whose check takes long enough to be waited for, and its secret.
func slow(t *testing.T) (importedhash.Hash, string) {
	for _, v := range vectors(t) {
		if v.Name == "bcrypt cost 10" {
			h, err := importedhash.Parse(v.Hash)
			require.NoError(t, err)
			return h, v.Secret
		}
	}
	t.Fatal("the vector is missing")
	return importedhash.Hash{}, ""
}

// record names the nth record.
func record(n int) [16]byte { return [16]byte{1, byte(n)} }

func TestLimiter(t *testing.T) {
	h, secret := slow(t)
	quick, err := importedhash.Parse(vectors(t)[0].Hash)
	require.NoError(t, err)

	t.Run("checks that wait their turn are made", func(t *testing.T) {
		l := importedhash.NewLimiter(1)
		const n = 8
		answers := make(chan error, n)
		for i := range n {
			go func() {
				ok, err := l.Verify(t.Context(), record(i), h, secret)
				if err == nil && !ok {
					err = fmt.Errorf("the right secret was refused")
				}
				answers <- err
			}()
		}
		for range n {
			require.NoError(t, <-answers)
		}
	})

	t.Run("a full queue refuses at once, and quick hashes pass it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := importedhash.NewLimiter(1)
			release := l.Hold(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			for i := range importedhash.QueueFactor {
				go func() {
					_, err := l.Verify(ctx, record(i), h, secret)
					done <- err
				}()
			}
			synctest.Wait()
			ok, err := l.Verify(ctx, record(importedhash.QueueFactor), h, secret)
			require.ErrorIs(t, err, importedhash.ErrBusy)
			require.False(t, ok)
			ok, err = l.Verify(ctx, record(0), quick, vectors(t)[0].Secret)
			require.NoError(t, err)
			require.True(t, ok)

			cancel()
			for range importedhash.QueueFactor {
				require.ErrorIs(t, <-done, context.Canceled)
			}
			release()
			ok, err = l.Verify(t.Context(), record(0), h, secret)
			require.NoError(t, err, "those that gave up left the queue")
			require.True(t, ok)
		})
	})

	t.Run("one record has one place in the queue", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := importedhash.NewLimiter(1)
			release := l.Hold(t)
			flood, victim := make(chan error, 1), make(chan error, 1)
			go func() { _, err := l.Verify(t.Context(), record(1), h, "wrong"); flood <- err }()
			synctest.Wait()
			for range 2 * importedhash.QueueFactor {
				_, err := l.Verify(t.Context(), record(1), h, "wrong")
				require.ErrorIs(t, err, importedhash.ErrBusy)
			}
			go func() { _, err := l.Verify(t.Context(), record(2), h, secret); victim <- err }()
			synctest.Wait()
			release()
			require.NoError(t, <-flood)
			require.NoError(t, <-victim)
		})
	})

	t.Run("a check takes as many turns as it has lanes", func(t *testing.T) {
		for _, lanes := range []int{1, 3} {
			h, secret := wide(t, lanes)
			require.Equal(t, lanes, h.Lanes())
			synctest.Test(t, func(t *testing.T) {
				l := importedhash.NewLimiter(3)
				release := l.Hold(t)
				done := make(chan bool, 1)
				go func() {
					ok, err := l.Verify(t.Context(), record(1), h, secret)
					done <- ok && err == nil
				}()
				synctest.Wait()
				require.Equal(t, lanes == 1, len(done) == 1, "two turns are left")
				release()
				require.True(t, <-done)
			})
		}
		h, secret := wide(t, 4)
		_, err := importedhash.NewLimiter(3).Verify(t.Context(), record(1), h, secret)
		require.ErrorIs(t, err, importedhash.ErrLanes, "never more than its share")
	})
}

// wide is an argon2id hash of some lanes, and its secret.
func wide(t *testing.T, lanes int) (importedhash.Hash, string) {
	b64 := base64.RawStdEncoding.EncodeToString
	salt := []byte("0123456789abcdef")
	digest := argon2.IDKey([]byte("secret"), salt, 1, 128, uint8(lanes), 32)
	h, err := importedhash.Parse(fmt.Sprintf("$argon2id$v=19$m=128,t=1,p=%d$%s$%s", lanes, b64(salt), b64(digest)))
	require.NoError(t, err)
	return h, "secret"
}

func FuzzParse(f *testing.F) {
	for _, v := range append(vectors(f), spellings(f)...) {
		f.Add(v.Hash)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := importedhash.Parse(text)
		if err != nil {
			require.Empty(t, h.Text())
			require.False(t, h.Verify(text))
			return
		}
		again, err := importedhash.Parse(h.Text())
		require.NoError(t, err)
		require.Equal(t, h.Text(), again.Text(), "what is stored is read as it was written")
		require.Equal(t, h.Slow(), again.Slow())
		require.Equal(t, h.Lanes(), again.Lanes())
		if _, plain := h.SHA256(); plain {
			require.False(t, h.Slow())
		}
		if !h.Slow() {
			require.False(t, h.Verify(text), "a stored hash is taken for its secret")
		}
	})
}
