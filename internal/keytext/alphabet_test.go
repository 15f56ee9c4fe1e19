package keytext_test

import (
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// base62 is the alphabet of everything after the prefix, in the order of its values.
const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// number reads base62 as a person would, or fails.
func number(t *testing.T, text string) (n uint64) {
	t.Helper()
	for _, c := range []byte(text) {
		v := strings.IndexByte(base62, c)
		require.GreaterOrEqual(t, v, 0, "%q", text)
		n = n*62 + uint64(v)
	}
	return n
}

// withSum puts six base62 characters of CRC-32C after a text, whatever it is.
func withSum(text string) string {
	sum := crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli))
	end := make([]byte, 6)
	for i := range end {
		end[5-i] = base62[sum%62]
		sum /= 62
	}
	return text + string(end)
}

// parts are an ID and a secret that are sound, and differ in every place from what
// is written over them.
func parts() []byte { return []byte(strings.Repeat("Kq7", 16)) }

func format(prefix string, parts []byte) string {
	return keytext.Format(prefix, [keytext.IDLen]byte(parts), [keytext.SecretLen]byte(parts[keytext.IDLen:]))
}

// Anybody can compute the checksum over anything, so the alphabet is looked at in
// every place, and no byte but the 62 passes in any.
func TestEveryPlaceOfABodyTakesTheAlphabetAndNothingElse(t *testing.T) {
	for place := range keytext.IDLen + keytext.SecretLen {
		for c := range 256 {
			changed := parts()
			changed[place] = byte(c)
			want := keytext.Alphabet
			if strings.IndexByte(base62, byte(c)) >= 0 {
				want = keytext.OK
			}
			require.Equal(t, want, check(format("fob", changed)), "byte %#x in place %d", c, place)
		}
	}
	text := format("fob", parts())
	for place := len(text) - 6; place < len(text); place++ {
		for c := range 256 {
			want := keytext.Alphabet
			switch {
			case byte(c) == text[place]:
				want = keytext.OK
			case strings.IndexByte(base62, byte(c)) >= 0:
				want = keytext.Checksum
			}
			require.Equal(t, want, check(text[:place]+string([]byte{byte(c)})+text[place+1:]), "byte %#x in place %d of the checksum", c, place)
		}
	}
}

// Eight bytes are looked at as one number, where one byte can carry into the next.
func TestNoByteHelpsItsNeighbourThroughTheAlphabet(t *testing.T) {
	for _, place := range []int{0, 6, 7, 8, 45, 46} { // within a word, and on both sides of its borders
		for c := range 256 {
			for d := range 256 {
				changed := parts()
				changed[place], changed[place+1] = byte(c), byte(d)
				sound := strings.IndexByte(base62, byte(c)) >= 0 && strings.IndexByte(base62, byte(d)) >= 0
				if p := check(format("fob", changed)); (p == keytext.OK) != sound {
					t.Fatalf("bytes %#x %#x in place %d: problem %d", c, d, place, p)
				}
			}
		}
	}
}

func TestAPrefixHasOneToTwentyCharacters(t *testing.T) {
	for n := range 25 {
		text := format(strings.Repeat("x", n), parts())
		prefix, p := keytext.Split(text)
		if n < 1 || n > 20 {
			require.Equal(t, keytext.Length, p, "%d characters", n)
			require.Empty(t, prefix)
			continue
		}
		require.Equal(t, keytext.OK, p, "%d characters", n)
		require.Equal(t, strings.Repeat("x", n), prefix)
		require.Equal(t, keytext.OK, keytext.Check(text))
	}
}

// What Split refuses reaches nothing else. Should it, nothing panics.
func TestWhatIsTooShortIsRefusedByEveryStep(t *testing.T) {
	for n := range keytext.BodyLen {
		text := strings.Repeat("1", n)
		require.False(t, keytext.Summed(text))
		require.Equal(t, keytext.Length, keytext.Check(text))
		require.Equal(t, keytext.Length, keytext.Blame(text))
		require.Zero(t, keytext.Block(text))
	}
	// A body alone is long enough for these; it is Split that asks for a prefix.
	body := withSum("1" + string(parts()))
	_, p := keytext.Split(body)
	require.Equal(t, keytext.Length, p)
	require.True(t, keytext.Summed(body))
	require.Equal(t, keytext.OK, keytext.Check(body))
	block := keytext.Block(body)
	require.Equal(t, "1"+string(parts()), string(block[:]))
}

func TestOtherVersionsAreRefusedWhateverTheirChecksum(t *testing.T) {
	for c := range 256 {
		text := withSum("fob_" + string([]byte{byte(c)}) + string(parts()))
		want := keytext.Version
		if c == '1' {
			want = keytext.OK
		}
		require.Equal(t, want, check(text), "version %#x", c)
	}
}

func TestSecretIsAPartOfTheText(t *testing.T) {
	text := format("acme_live", parts())
	secret := keytext.Secret(text)
	require.Equal(t, text[len("acme_live_"):len(text)-6], string(secret))
	block := keytext.Block(text)
	require.Equal(t, string(block[:]), string(secret))
	require.Equal(t, len(secret), cap(secret), "who appends to it writes elsewhere")
}

// The eight characters before the random ones are 43 bits of milliseconds and four
// of noise. IDs in the field keep that meaning for ever.
func TestTheTimeInAnID(t *testing.T) {
	id, ok := keytext.ParseID("0ZqKJ3vT9xWm4cRb")
	require.True(t, ok)
	// 0ZqKJ3vT is 2,035,947,222,751 in base62, which was computed in another language.
	require.Equal(t, int64(number(t, "0ZqKJ3vT")/16), keytext.IDTime(id).UnixMilli())
	require.Equal(t, int64(127_246_701_421), keytext.IDTime(id).UnixMilli())
	require.Equal(t, time.UTC, keytext.IDTime(id).Location())

	const last = 1<<43 - 1 // in the year 2248
	for ms, want := range map[int64]int64{
		0: 0, 1: 1, 1_795_424_400_000: 1_795_424_400_000, last / 2: last / 2, last/2 + 1: last/2 + 1, last: last,
		last + 1: 0, last + 5: 4, // they begin anew
		-1: 0, -62_135_596_800_000: 0, // there is no time before 1970
	} {
		id := keytext.NewID(time.UnixMilli(ms))
		require.Equal(t, want, keytext.IDTime(id).UnixMilli(), "%d", ms)
		require.Equal(t, uint64(want), number(t, string(id[:8]))>>4, "%d", ms)
	}
}

func TestEveryRandomBitOfAnIDIsDrawn(t *testing.T) {
	const random = 1<<47 - 1
	now := time.UnixMilli(1_795_424_400_000)
	// ones and zeros are the bits that were once one, and once zero: of 200 draws that
	// a bit misses one of them happens once in 10^58 times.
	var noise, noNoise, ones, zeros uint64
	for range 200 {
		id := keytext.NewID(now)
		first, second := number(t, string(id[:8])), number(t, string(id[8:]))
		require.LessOrEqual(t, second, uint64(random))
		noise, noNoise = noise|first&15, noNoise|^first&15
		ones, zeros = ones|second, zeros|^second&random
	}
	require.Equal(t, []uint64{15, 15, random, random}, []uint64{noise, noNoise, ones, zeros})
}

// A prefix is lower-case letters, digits and single underscores between them.
func TestWhichCharactersAPrefixMayHave(t *testing.T) {
	for c := range 256 {
		letter := c >= 'a' && c <= 'z'
		inside := letter || c >= '0' && c <= '9'
		for text, want := range map[string]bool{
			"@":      letter,
			"@bc":    letter,
			"ab@":    inside,
			"a@c":    inside || c == '_',
			"ab_@":   inside,
			"ab_@cd": inside,
			"ab@_cd": inside,
		} {
			text = strings.Replace(text, "@", string([]byte{byte(c)}), 1)
			require.Equal(t, want, keytext.CheckPrefix(text) == nil, "%q", text)
		}
	}
}
