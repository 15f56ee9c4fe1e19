package keytext_test

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

const sound = "acme_live_"

func newText(prefix string) string {
	return keytext.Format(prefix, keytext.NewID(time.Now()), keytext.NewSecret())
}

func check(text string) keytext.Problem {
	if _, p := keytext.Split(text); p != keytext.OK {
		return p
	}
	return keytext.Check(text)
}

func TestFormatIsFixed(t *testing.T) {
	var id [keytext.IDLen]byte
	var secret [keytext.SecretLen]byte
	copy(id[:], "0ZqKJ3vT9xWm4cRb")
	copy(secret[:], "abcdefghijklmnopqrstuvwxyz012345")
	// The checksum (CRC-32C 0x4642256b) was computed by a bitwise program in another
	// language: keys in the field must stay readable for ever.
	text := keytext.Format("acme_live", id, secret)
	require.Equal(t, "acme_live_10ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz0123451Hls8h", text)
	require.Equal(t, keytext.OK, check(text))
	prefix, p := keytext.Split(text)
	require.Equal(t, keytext.OK, p)
	require.Equal(t, "acme_live", prefix)
	block := keytext.Block(text)
	require.Equal(t, text[10:59], string(block[:]))
}

func TestEverySingleByteChangeIsRefused(t *testing.T) {
	text := newText("acme_live")
	for i := range len(text) {
		for c := range 256 {
			if byte(c) == text[i] {
				continue
			}
			changed := text[:i] + string([]byte{byte(c)}) + text[i+1:]
			require.NotEqual(t, keytext.OK, check(changed), "byte %d changed to %#x", i, c)
		}
	}
	for i := range len(text) - 1 {
		swapped := text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:]
		if swapped != text {
			require.NotEqual(t, keytext.OK, check(swapped), "bytes %d and %d swapped", i, i+1)
		}
	}
}

func TestProblems(t *testing.T) {
	text := newText("acme_live")
	at := func(i int, c byte) string { return text[:i] + string([]byte{c}) + text[i+1:] }
	body := len(sound)
	other := byte('a')
	if text[body+20] == other {
		other = 'b'
	}
	for name, c := range map[string]struct {
		text string
		want keytext.Problem
	}{
		"sound":          {text, keytext.OK},
		"empty":          {"", keytext.Length},
		"no prefix":      {text[body:], keytext.Length},
		"no separator":   {strings.ReplaceAll(text, "_", "x"), keytext.Length},
		"long prefix":    {strings.Repeat("a", 12) + text, keytext.Length},
		"cut":            {text[:len(text)-1], keytext.Length},
		"longer":         {text + "0", keytext.Length},
		"version":        {at(body, '2'), keytext.Version},
		"alphabet id":    {at(body+1, '-'), keytext.Alphabet},
		"alphabet sum":   {at(len(text)-1, '-'), keytext.Alphabet},
		"high bit":       {at(body+5, 0xff), keytext.Alphabet},
		"typing error":   {at(body+20, other), keytext.Checksum},
		"prefix changed": {"acme_test" + text[9:], keytext.Checksum},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, check(c.text)) })
	}
}

// A byte that is no digit counts as 128 where a digit counts as its value: 4 more
// than twice 62. Such a text must not pass for the one whose checksum it adds up to.
func TestAChecksumHasNoSecondText(t *testing.T) {
	for {
		text := newText("acme_live")
		last := len(text) - 1
		if text[last] != '4' || text[last-1] < '2' || text[last-1] > '9' {
			continue
		}
		require.True(t, keytext.Summed(text))
		require.False(t, keytext.Summed(text[:last-1]+string([]byte{text[last-1] - 2, '-'})))
		return
	}
}

func TestSummedAndBlameAgreeWithCheck(t *testing.T) {
	text := newText("acme_live")
	for i := len(sound); i < len(text); i++ {
		for _, c := range []byte("0aZ-_\x00\xff") {
			changed := text[:i] + string([]byte{c}) + text[i+1:]
			want := keytext.Check(changed)
			if !keytext.Summed(changed) {
				require.Equal(t, want, keytext.Blame(changed))
				continue
			}
			require.Equal(t, text, changed)
			require.Equal(t, keytext.OK, want)
		}
	}
	require.False(t, keytext.Summed("short"))
	require.Equal(t, keytext.Length, keytext.Blame("short"))
}

func TestAChecksumOverAWrongAlphabetIsStillRefused(t *testing.T) {
	id, secret := keytext.NewID(time.Now()), keytext.NewSecret()
	secret[7] = '-'
	require.Equal(t, keytext.Alphabet, check(keytext.Format("acme", id, secret)))
	id[0] = 0
	require.Equal(t, keytext.Alphabet, check(keytext.Format("acme", id, keytext.NewSecret())))
}

func TestIDsSortByTime(t *testing.T) {
	start := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	last := keytext.NewID(time.UnixMilli(0))
	for i := range 1000 {
		now := start.Add(time.Duration(i) * time.Millisecond)
		id := keytext.NewID(now)
		require.Less(t, string(last[:]), string(id[:]))
		require.Equal(t, now, keytext.IDTime(id))
		parsed, ok := keytext.ParseID(string(id[:]))
		require.True(t, ok)
		require.Equal(t, id, parsed)
		last = id
	}
	far := keytext.NewID(time.Date(2248, 1, 1, 0, 0, 0, 0, time.UTC))
	require.Less(t, string(last[:]), string(far[:]))
	for _, bad := range []string{"", "short", "0ZqKJ3vT9xWm4cR-", "0ZqKJ3vT9xWm4cRb0", "\x00ZqKJ3vT9xWm4cRb"} {
		_, ok := keytext.ParseID(bad)
		require.False(t, ok, "%q", bad)
	}
}

func TestIDsOfOneMillisecondDiffer(t *testing.T) {
	now := time.Now()
	seen := map[[keytext.IDLen]byte]bool{}
	for range 100_000 {
		id := keytext.NewID(now)
		require.False(t, seen[id])
		seen[id] = true
	}
}

func TestSecretsAreUnbiased(t *testing.T) {
	var count [256]int
	const draws = 50_000
	for range draws {
		for _, c := range keytext.NewSecret() {
			count[c]++
		}
	}
	const want = float64(draws*keytext.SecretLen) / 62
	chi2, kinds := 0.0, 0
	for _, n := range count {
		if n > 0 {
			kinds++
			chi2 += (float64(n) - want) * (float64(n) - want) / want
		}
	}
	require.Equal(t, 62, kinds)
	// 61 degrees of freedom: above 150 once in 10^9 runs. Taking a byte modulo 62
	// without rejection gives over 30,000.
	require.Less(t, chi2, 150.0)
}

func TestPrefixes(t *testing.T) {
	for _, good := range []string{"a", "fob", "acme_live", "a1_2b", "abcdefghij0123456789"} {
		require.NoError(t, keytext.CheckPrefix(good), good)
	}
	for _, bad := range []string{"", "_a", "a_", "a__b", "A", "1a", "a-b", "a b", "é", "abcdefghij0123456789x"} {
		require.Error(t, keytext.CheckPrefix(bad), bad)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	good, bad := newText("acme_live"), newText("acme_live")[:64]+"-"
	require.Zero(t, testing.AllocsPerRun(100, func() {
		check(good)
		check(bad)
		keytext.Block(good)
	}))
}

func FuzzRead(f *testing.F) {
	f.Add(newText("acme_live"))
	f.Add("")
	f.Add("_")
	f.Add(strings.Repeat("_", 56))
	f.Fuzz(func(t *testing.T, text string) {
		if check(text) != keytext.OK {
			return
		}
		prefix, _ := keytext.Split(text)
		block := keytext.Block(text)
		require.Equal(t, byte(keytext.Current), block[0])
		id := [keytext.IDLen]byte(block[1:])
		secret := [keytext.SecretLen]byte(block[1+keytext.IDLen:])
		require.Equal(t, text, keytext.Format(prefix, id, secret), "one key has one text")
		_, ok := keytext.ParseID(string(id[:]))
		require.True(t, ok)
	})
}

func FuzzParts(f *testing.F) {
	f.Add([]byte("acme_live"), []byte("0ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz012345"))
	f.Fuzz(func(t *testing.T, prefix, random []byte) {
		var id [keytext.IDLen]byte
		var secret [keytext.SecretLen]byte
		copy(secret[copy(id[:], random):], "")
		if len(random) > keytext.IDLen {
			copy(secret[:], random[keytext.IDLen:])
		}
		text := keytext.Format(string(prefix), id, secret)
		base62 := !strings.ContainsFunc(string(id[:])+string(secret[:]), func(r rune) bool {
			return !strings.ContainsRune("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", r)
		})
		fits := len(prefix) >= 1 && len(prefix) <= keytext.MaxPrefix
		require.Equal(t, base62 && fits, check(text) == keytext.OK)
	})
}

var sink keytext.Problem

func BenchmarkFloorSHA256Block(b *testing.B) {
	block := keytext.Block(newText("acme_live"))
	for b.Loop() {
		block[0] = sha256.Sum256(block[:])[0]
	}
}

func BenchmarkCheck(b *testing.B) {
	good := newText("acme_live")
	i := len(good) - 20
	wrong := good[:i] + "0" + good[i+1:]
	if wrong == good {
		wrong = good[:i] + "1" + good[i+1:]
	}
	for name, c := range map[string]struct {
		text string
		want keytext.Problem
	}{"sound": {good, keytext.OK}, "checksum": {wrong, keytext.Checksum}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, sink = keytext.Split(c.text); sink == keytext.OK {
					sink = keytext.Check(c.text)
				}
			}
			if c.want != keytext.OK && sink != c.want {
				b.Fatalf("problem %d, want %d", sink, c.want)
			}
		})
	}
}

func TestSumIsTheEndOfAText(t *testing.T) {
	text := keytext.Format("acme_live", [keytext.IDLen]byte([]byte("0123456789abcdef")), keytext.NewSecret())
	require.Equal(t, text[len(text)-6:], string(sumOf(text)))
	require.Equal(t, "abcdef", string(sumOf("abcdef")))
	require.Equal(t, make([]byte, 6), sumOf("abcde"), "of what is no text")
}

func sumOf(text string) []byte {
	sum := keytext.Sum(text)
	return sum[:]
}

// A character that is no digit has no value that could stand for a digit and a carry.
func TestNoTwoTextsDifferInTheChecksumAlone(t *testing.T) {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for place := 1; place < 6; place++ {
		for forged := false; !forged; {
			text := keytext.Format("acme", [keytext.IDLen]byte([]byte("0123456789abcdef")), keytext.NewSecret())
			sum := sumOf(text)
			before := strings.IndexByte(digits, sum[place-1])
			if sum[place] != '4' || before < 2 {
				continue
			}
			// Two less of the digit before are 124, and 124 and 4 are 128.
			sum[place-1], sum[place] = digits[before-2], '-'
			require.False(t, keytext.Summed(text[:len(text)-6]+string(sum)), "at %d", place)
			forged = true
		}
	}
}
