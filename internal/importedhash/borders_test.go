package importedhash_test

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fobkit/fob/internal/importedhash"
	"github.com/stretchr/testify/require"
)

// bytes64 is the unpadded base64 of n bytes.
func bytes64(n int) string {
	return base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("s", n)))
}

// What a check may cost, at its borders: below it is read, above it refused before
// anything is computed.
func TestTheCostOfACheckIsBounded(t *testing.T) {
	pbkdf2 := func(n int64) string { return fmt.Sprintf("$pbkdf2-sha256$i=%d$%s$%s", n, bytes64(16), bytes64(32)) }
	django := func(n int) string {
		return fmt.Sprintf("pbkdf2_sha256$%d$salt$%s", n, base64.StdEncoding.EncodeToString(make([]byte, 32)))
	}
	argon := func(m, t, p int) string {
		return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", m, t, p, bytes64(16), bytes64(32))
	}
	bcrypt := func(cost string) string {
		return "$2b$" + cost + "$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6"
	}
	for text, want := range map[string]error{
		pbkdf2(0): importedhash.ErrCost, pbkdf2(1): nil, pbkdf2(5_000_000): nil, pbkdf2(5_000_001): importedhash.ErrCost,
		django(0): importedhash.ErrCost, django(1): nil, django(5_000_000): nil, django(5_000_001): importedhash.ErrCost,
		pbkdf2(4_294_967_295): importedhash.ErrCost, pbkdf2(4_294_967_296): importedhash.ErrFormat,
		argon(8, 1, 1): nil, argon(7, 1, 1): importedhash.ErrCost, argon(128, 1, 16): nil, argon(127, 1, 16): importedhash.ErrCost,
		argon(262_144, 1, 1): nil, argon(262_145, 1, 1): importedhash.ErrCost,
		argon(64, 0, 1): importedhash.ErrCost, argon(64, 16, 1): nil, argon(64, 17, 1): importedhash.ErrCost,
		argon(1024, 1, 0): importedhash.ErrCost, argon(1024, 1, 17): importedhash.ErrCost, argon(0, 1, 1): importedhash.ErrCost,
		bcrypt("04"): nil, bcrypt("15"): nil, bcrypt("16"): importedhash.ErrCost, bcrypt("31"): importedhash.ErrCost, bcrypt("03"): importedhash.ErrFormat, bcrypt("32"): importedhash.ErrFormat,
	} {
		h, err := importedhash.Parse(text)
		if want != nil {
			require.ErrorIs(t, err, want, text)
			require.Empty(t, h.Text())
			require.False(t, h.Slow())
			continue
		}
		require.NoError(t, err, text)
		require.True(t, h.Slow())
	}
}

// A salt has 1 to 64 bytes, a digest 16 to 64, those of SHA-512 all of its 64.
func TestTheSizesOfSaltsAndDigests(t *testing.T) {
	for n := range 70 {
		for text, want := range map[string]bool{
			"$pbkdf2-sha256$i=10$" + bytes64(n) + "$" + bytes64(32):                                                  n >= 1 && n <= 64,
			"$pbkdf2-sha512$i=10$" + bytes64(16) + "$" + bytes64(n):                                                  n >= 16 && n <= 64,
			"$argon2id$v=19$m=8,t=1,p=1$" + bytes64(n) + "$" + bytes64(32):                                           n >= 1 && n <= 64,
			"$argon2id$v=19$m=8,t=1,p=1$" + bytes64(8) + "$" + bytes64(n):                                            n >= 16 && n <= 64,
			"$sha512$prefix$" + bytes64(8) + "$" + bytes64(n):                                                        n == 64,
			"$sha512$suffix$" + bytes64(n) + "$" + bytes64(64):                                                       n >= 1 && n <= 64,
			"pbkdf2_sha256$10$" + strings.Repeat("s", n) + "$" + base64.StdEncoding.EncodeToString(make([]byte, 32)): n >= 1 && n <= 64,
			"pbkdf2_sha256$10$salt$" + base64.StdEncoding.EncodeToString(make([]byte, n)):                            n == 32,
			"$sha256$prefix$" + bytes64(8) + "$" + bytes64(n):                                                        n == 32,
			"$sha256$suffix$" + bytes64(n) + "$" + bytes64(32):                                                       n >= 1 && n <= 64,
			strings.Repeat("A", n):    n == 64 || n == 43, // 43 of them are base64
			strings.Repeat("b", n):    n == 64,            // in base64 the last one has bits too many
			strings.Repeat("b", 64+n): n == 0 || n == 64,
		} {
			h, err := importedhash.Parse(text)
			require.Equal(t, want, err == nil, text)
			if want {
				if strings.Contains(text, "$") {
					require.Equal(t, text, h.Text())
				}
			} else {
				require.ErrorIs(t, err, importedhash.ErrFormat, text)
			}
		}
	}
}

// In the place of each part of a text stands something else, or nothing.
func TestEveryPartOfATextIsLookedAt(t *testing.T) {
	for _, v := range vectors(t) {
		parts := strings.Split(v.Hash, "$")
		for i := range parts {
			for _, other := range []string{"", "x", parts[i] + "x", " " + parts[i], parts[i] + "\n", parts[i] + "\r"} {
				if i == 0 && parts[0] == "" && other == "" {
					continue
				}
				changed := append([]string(nil), parts...)
				changed[i] = other
				text := strings.Join(changed, "$")
				h, err := importedhash.Parse(text)
				if text == v.Hash || err != nil {
					continue
				}
				require.False(t, h.Verify(v.Secret), "%s: %q", v.Name, text)
			}
			without := append(append([]string(nil), parts[:i]...), parts[i+1:]...)
			_, err := importedhash.Parse(strings.Join(without, "$"))
			require.ErrorIs(t, err, importedhash.ErrFormat, "%s without part %d", v.Name, i)
		}
		if len(parts) > 1 {
			_, err := importedhash.Parse(v.Hash + "$")
			require.ErrorIs(t, err, importedhash.ErrFormat, v.Name)
			_, err = importedhash.Parse(v.Hash + "$x")
			require.ErrorIs(t, err, importedhash.ErrFormat, v.Name)
		}
	}
}

// encoding/base64 passes over line breaks wherever they stand: a text with them would
// be a second one of the same hash.
func TestLineBreaksAreNoPartOfAHash(t *testing.T) {
	for _, text := range []string{"$pbkdf2-sha256$i=10$%s$%s", "$argon2id$v=19$m=8,t=1,p=1$%s$%s"} {
		for _, end := range []string{"\r", "\n"} {
			for _, parts := range [][2]string{{bytes64(16) + end, bytes64(32)}, {bytes64(16), bytes64(32) + end}, {end + bytes64(16), bytes64(32)}} {
				_, err := importedhash.Parse(fmt.Sprintf(text, parts[0], parts[1]))
				require.ErrorIs(t, err, importedhash.ErrFormat)
			}
		}
		_, err := importedhash.Parse(fmt.Sprintf(text, bytes64(16), bytes64(32)))
		require.NoError(t, err)
	}
	digest := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, text := range []string{digest + "\n", digest + "\r", "\n" + digest, digest[:20] + "\r\n" + digest[20:]} {
		_, err := importedhash.Parse("pbkdf2_sha256$10$salt$" + text)
		require.ErrorIs(t, err, importedhash.ErrFormat, "%q", text)
	}
}

// The last 53 characters of a bcrypt hash are of its own base64.
func TestTheAlphabetOfBcrypt(t *testing.T) {
	const text = "$2b$10$fobKeysAreImported/HeOe4p75hDZx5FF9LArbhip3f7W8gWpNl6"
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for place := 7; place < len(text); place++ {
		for c := range 256 {
			_, err := importedhash.Parse(text[:place] + string([]byte{byte(c)}) + text[place+1:])
			at := strings.IndexByte(alphabet, byte(c))
			if place == len(text)-1 && at%4 != 0 { // the last 2 of its bits are none of the digest
				at = -1
			}
			require.Equal(t, at >= 0, err == nil, "%#x in place %d", c, place)
		}
	}
	for _, version := range []string{"a", "b", "y"} {
		_, err := importedhash.Parse("$2" + version + text[3:])
		require.NoError(t, err)
	}
	for _, version := range []string{"", "x", "A", "c", "bb"} {
		_, err := importedhash.Parse("$2" + version + text[3:])
		require.ErrorIs(t, err, importedhash.ErrFormat)
	}
}

// A text of 64 characters is a SHA-256 only without a '$'.
func TestALengthAloneIsNoSHA256(t *testing.T) {
	text := "$pbkdf2-sha256$i=1$" + bytes64(16) + "$" + bytes64(16)
	for len(text) < 64 {
		text = strings.Replace(text, "i=1", "i=10", 1)
		if len(text) > 64 {
			t.Fatal(text)
		}
	}
	require.Len(t, text, 64)
	h, err := importedhash.Parse(text)
	require.NoError(t, err)
	require.True(t, h.Slow())
	_, plain := h.SHA256()
	require.False(t, plain)
}

// Which side the salt stands on makes another hash, by SHA-256 and SHA-512 of the standard
// library.
func TestTheSaltStandsBeforeOrAfter(t *testing.T) {
	salt, secret := "pepper", "secret"
	before, after := sha512.Sum512([]byte(salt+secret)), sha512.Sum512([]byte(secret+salt))
	before256, after256 := sha256.Sum256([]byte(salt+secret)), sha256.Sum256([]byte(secret+salt))
	b64 := base64.RawStdEncoding.EncodeToString
	for place, digest := range map[string][]byte{
		"sha512$prefix": before[:], "sha512$suffix": after[:], "sha256$prefix": before256[:], "sha256$suffix": after256[:],
	} {
		h, err := importedhash.Parse("$" + place + "$" + b64([]byte(salt)) + "$" + b64(digest))
		require.NoError(t, err)
		require.True(t, h.Verify(secret))
		require.False(t, h.Verify(salt))
		require.False(t, h.Slow())
		require.Equal(t, 1, h.Lanes())
	}
	require.False(t, importedhash.Hash{}.Verify(""), "the zero Hash matches nothing")
	require.Equal(t, 1, importedhash.Hash{}.Lanes())
	_, plain := importedhash.Hash{}.SHA256()
	require.False(t, plain, "nor is it found by anything")
}

// For each check at once, 16 may wait; of no checks at once there is one all the same.
func TestHowManyMayWait(t *testing.T) {
	h, secret := slow(t)
	for turns, at := range map[int]int{-1: 1, 0: 1, 1: 1, 2: 2} {
		synctest.Test(t, func(t *testing.T) {
			l := importedhash.NewLimiter(turns)
			for range 2 { // the second time as the first: nothing of it is left
				var release []func()
				for range at {
					release = append(release, l.Hold(t))
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				for i := range 16 * at {
					go func() {
						ok, err := l.Verify(ctx, record(i), h, secret)
						if ok {
							t.Error("a check that was not made has a result")
						}
						done <- err
					}()
				}
				synctest.Wait()
				ok, err := l.Verify(ctx, record(200), h, secret)
				require.ErrorIs(t, err, importedhash.ErrBusy, "%d turns", turns)
				require.False(t, ok)
				cancel()
				for range 16 * at {
					require.ErrorIs(t, <-done, context.Canceled)
				}
				for _, f := range release {
					f()
				}
			}
		})
	}
}

// One after the other a record has as many checks as one likes, wrong or right.
func TestARecordIsFreeAfterItsCheck(t *testing.T) {
	h, secret := wide(t, 2)
	l := importedhash.NewLimiter(2)
	for i := range 6 {
		presented := secret
		if i%2 == 1 {
			presented = "wrong"
		}
		ok, err := l.Verify(t.Context(), record(1), h, presented)
		require.NoError(t, err)
		require.Equal(t, i%2 == 0, ok)
	}
}
