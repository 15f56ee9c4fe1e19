package claims_test

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/claims"
	"github.com/stretchr/testify/require"
)

// every calls do with each text of up to n of the alphabet's characters.
func every(alphabet string, n int, do func(string)) {
	var walk func(string)
	walk = func(text string) {
		do(text)
		if len(text) < n {
			for i := range len(alphabet) {
				walk(text + alphabet[i:i+1])
			}
		}
	}
	walk("")
}

// What is no JSON is refused, and what is JSON accepted, whatever short text stands
// in the place of a value. encoding/json says which is which.
func TestShortTextsAreReadAsJSON(t *testing.T) {
	check := func(alphabet string, n int) {
		every(alphabet, n, func(value string) {
			text := []byte(`{"a":` + value + `}`)
			c, err := claims.Decode(text)
			if valid := json.Valid(text); valid != (err == nil) {
				t.Fatalf("%s: valid %t, error %v", text, valid, err)
			}
			if err == nil && len(c.Custom) != 1 {
				// A value may hold a comma and another member, but no name twice.
				t.Fatalf("%s: %v", text, c.Custom)
			}
		})
	}
	check("-+019.eE/:", 4)
	check("{}[],: 1", 5)
	check("\"\\u/0 \t\n\x1f\x7f", 4)
	check("truefalsn", 4)
	for _, word := range []string{"true", "false", "null", "True", "nul", "nulll", "truefalse", "NaN", "Infinity"} {
		check(word, 1)
		for i := range word {
			for _, c := range "xX\x00" {
				text := []byte(`{"a":` + word[:i] + string(c) + word[i+1:] + `}`)
				_, err := claims.Decode(text)
				require.Equal(t, json.Valid(text), err == nil, "%s", text)
			}
		}
		text := []byte(`{"a":` + word + `}`)
		_, err := claims.Decode(text)
		require.Equal(t, json.Valid(text), err == nil, "%s", text)
	}
}

// Between any two parts of a payload there may be the four kinds of space that JSON
// has, and no other byte.
func TestSpaceStandsBetweenPartsAndIsOfFourKinds(t *testing.T) {
	parts := []string{"", "{", `"a"`, ":", "[", "1", ",", `"x"`, ",", "{", "}", "]", ",", `"sub"`, ":", `"s"`, "}", ""}
	for i := 1; i < len(parts); i++ {
		for c := range 256 {
			text := strings.Join(parts[:i], "") + string([]byte{byte(c)}) + strings.Join(parts[i:], "")
			_, err := claims.Decode([]byte(text))
			space := strings.IndexByte(" \t\n\r", byte(c)) >= 0
			// Digits beside a digit, or a minus before it, make another number.
			other := err == nil && json.Valid([]byte(text))
			if space || !other {
				require.Equal(t, space, err == nil, "%q", text)
			}
		}
		many := strings.Join(parts[:i], "") + " \t\r\n \t\r\n" + strings.Join(parts[i:], "")
		_, err := claims.Decode([]byte(many))
		require.NoError(t, err, "%q", many)
	}
}

// A backslash stands before eight characters, or u and four hexadecimal digits.
func TestEscapes(t *testing.T) {
	for c := range 128 {
		text := []byte(`{"a":"x\` + string(rune(c)) + `y"}`)
		got, err := claims.Decode(text)
		want, ok := map[byte]string{'"': `"`, '\\': `\`, '/': "/", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t"}[byte(c)]
		require.Equal(t, ok, err == nil, "%q", text)
		if ok {
			require.Equal(t, "x"+want+"y", got.Custom["a"])
		}
	}
	for place := range 4 {
		for c := range 128 {
			digits := []byte("0041")
			digits[place] = byte(c)
			text := fmt.Appendf(nil, `{"a":"\u%sz"}`, digits)
			got, err := claims.Decode(text)
			if !regexp.MustCompile("^[0-9A-Fa-f]{4}$").Match(digits) {
				require.ErrorIs(t, err, claims.ErrClaims, "%q", text)
				continue
			}
			var want struct{ A string }
			require.NoError(t, json.Unmarshal(text, &want))
			if strings.ContainsRune(want.A, '\ufffd') { // encoding/json puts it for half a pair
				require.ErrorIs(t, err, claims.ErrClaims, "%q", text)
				continue
			}
			require.NoError(t, err, "%q", text)
			require.Equal(t, want.A, got.Custom["a"], "%q", text)
		}
	}
	for _, c := range []byte{0, 1, 0x1e, 0x1f, 0x20, 0x21, 0x7f} {
		for _, before := range []string{"x", `\n`} { // a string without escapes, and one with
			_, err := claims.Decode([]byte(`{"a":"` + before + string(rune(c)) + `"}`))
			require.Equal(t, c >= ' ', err == nil, "%#x after %q", c, before)
		}
	}
}

func TestControlCharactersAreWrittenInTheirShortestForm(t *testing.T) {
	for c := range 0x30 {
		b, err := claims.Append(nil, &claims.Claims{Custom: map[string]any{"a": string(rune(c))}})
		require.NoError(t, err)
		want := fmt.Sprintf(`\u%04x`, c)
		switch {
		case strings.ContainsRune("\b\f\n\r\t", rune(c)):
			want = map[rune]string{'\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}[rune(c)]
		case c == '"':
			want = `\"`
		case c >= ' ':
			want = string(rune(c))
		}
		require.Equal(t, `{"a":"`+want+`"}`, string(b))
	}
}

func TestFloatsAreWrittenInTheirShortestForm(t *testing.T) {
	for v, want := range map[float64]string{
		1: "1.0", -1: "-1.0", 10: "1e1", 100: "1e2", 12: "12.0", 123: "123.0", 1230: "123e1", 0.5: "0.5", 0.01: "0.01", 0.001: "1e-3", 0.012: "0.012",
		0.0012: "12e-4", 123456.75: "123456.75", 1e19: "1e19", 1e21: "1e21", 1.5e300: "15e299", 5e-324: "5e-324", 0.1: "0.1", 12345678901234568: "12345678901234568.0",
		123456789012345680: "12345678901234568e1", 0: "0.0", math.MaxFloat64: "17976931348623157e292",
	} {
		b, err := claims.Append(nil, &claims.Claims{Custom: map[string]any{"a": v}})
		require.NoError(t, err)
		require.Equal(t, `{"a":`+want+`}`, string(b))
		c, err := claims.Decode(b)
		require.NoError(t, err)
		require.Equal(t, v, c.Custom["a"])
	}
}

var instant = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-](\d\d):(\d\d))$`)

// sound is RFC 3339 as PASETO has it, in another way than this package reads it.
func sound(text string) bool {
	m := instant.FindStringSubmatch(text)
	if m == nil || m[4] > "23" || m[5] > "59" {
		return false
	}
	at, err := time.Parse("2006-01-02T15:04:05Z07:00", m[1]+m[3])
	return err == nil && m[1][:4] >= "1970" && at.UnixMilli() >= 1 && at.Unix() <= 253402300799
}

func checkInstant(t *testing.T, text string) {
	t.Helper()
	if strings.ContainsAny(text, "\"\\") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return
	}
	c, err := claims.Decode([]byte(`{"exp":"` + text + `"}`))
	if want := sound(text); want != (err == nil) {
		t.Fatalf("%s: want %t, error %v", text, want, err)
	}
	if err == nil {
		at, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
		require.Equal(t, at.UnixMilli(), c.ExpiresAt, text)
	}
}

func TestEveryCharacterOfAnInstant(t *testing.T) {
	for _, text := range []string{"2026-11-23T08:00:00Z", "2026-11-23T08:10:20.5Z", "2026-11-23T08:10:20.123456789+01:30", "2027-02-28T23:59:59-11:59", "1970-01-01T00:00:01Z"} {
		checkInstant(t, text)
		for i := range text {
			checkInstant(t, text[:i]+text[i+1:])
			for c := byte(' '); c <= '~'; c++ {
				checkInstant(t, text[:i]+string([]byte{c})+text[i+1:])
				checkInstant(t, text[:i]+string([]byte{c})+text[i:])
			}
		}
	}
	for n := range 14 {
		checkInstant(t, "2026-11-23T08:00:00."+strings.Repeat("7", n)+"Z")
		checkInstant(t, "2026-11-23T08:00:00."+strings.Repeat("7", n)+"-00:01")
		checkInstant(t, "2026-11-23T08:00:00."+strings.Repeat("7", n))
	}
}

func TestEveryFieldOfAnInstant(t *testing.T) {
	for n := range 100 {
		for _, form := range []string{
			"2026-%02d-01T00:00:00Z", "2026-%02d-30T00:00:00Z", "2026-%02d-31T00:00:00Z", "2026-01-%02dT00:00:00Z", "2026-02-%02dT00:00:00Z", "2028-02-%02dT00:00:00Z",
			"2026-04-%02dT00:00:00Z", "2026-11-23T%02d:00:00Z", "2026-11-23T08:%02d:00Z", "2026-11-23T08:00:%02dZ", "2026-11-23T08:00:00+%02d:00",
			"2026-11-23T08:00:00-%02d:00", "2026-11-23T08:00:00+00:%02d", "2026-11-23T08:00:00-23:%02d", "1970-01-01T00:00:%02dZ",
			"1970-01-01T00:01:00+00:%02d", "9999-12-31T23:%02d:59-00:30", "1970-01-01T23:%02d:00+23:30",
		} {
			checkInstant(t, fmt.Sprintf(form, n))
		}
	}
	for year := range 10_000 {
		checkInstant(t, fmt.Sprintf("%04d-02-29T00:00:00Z", year))
		checkInstant(t, fmt.Sprintf("%04d-12-31T23:59:59Z", year))
	}
}

// An instant that lies within the bounds by its offset, and one that does not.
func TestInstantsAtTheEndOfTime(t *testing.T) {
	for _, text := range []string{
		"9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59+00:01", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:58.999Z", "9999-12-31T23:59:59.999Z",
		"1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1970-01-01T01:00:00+01:00", "1970-01-01T01:00:01+01:00", "1970-01-01T00:00:00-00:01",
	} {
		checkInstant(t, text)
	}
	// What begins is rounded up, and must still be a time after that.
	_, err := claims.Decode([]byte(`{"nbf":"9999-12-31T23:59:59.9980001Z"}`))
	require.NoError(t, err)
	_, err = claims.Decode([]byte(`{"nbf":"9999-12-31T23:59:59.9990001Z"}`))
	require.ErrorContains(t, err, "nbf: out of range")
}

func TestTheBoundsAreExact(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	payload := func(size int) []byte {
		head := `{"a":"` + long(4000) + `","b":"`
		return []byte(head + long(size-len(head)-2) + `"}`)
	}
	require.Equal(t, 5120, claims.MaxSize)
	for size, want := range map[int]bool{5119: true, 5120: true, 5121: false} {
		text := payload(size)
		require.Len(t, text, size)
		_, err := claims.Decode(text)
		require.Equal(t, want, err == nil, "%d bytes", size)
	}
	for n, want := range map[int]bool{4095: true, 4096: true, 4097: false} {
		for _, text := range []string{`{"a":"` + long(n) + `"}`, `{"a":"\n` + long(n-1) + `"}`, `{"a":"` + long(n-1) + `\n"}`, `{"` + long(n) + `":1}`} {
			_, err := claims.Decode([]byte(text))
			require.Equal(t, want, err == nil, "a string of %d bytes", n)
		}
		_, err := claims.Append(nil, &claims.Claims{Subject: long(n)})
		require.Equal(t, want, err == nil, "a subject of %d bytes", n)
	}
	for n, want := range map[int]bool{63: true, 64: true, 65: false} {
		for _, text := range []string{`{"a":[1` + strings.Repeat(",1", n-1) + `]}`, `{"n":1` + members(n-1) + `}`, `{"a":{"n":1` + members(n-1) + `}}`} {
			_, err := claims.Decode([]byte(text))
			require.Equal(t, want, err == nil, "%d members", n)
		}
	}
	for depth, want := range map[int]bool{7: true, 8: true, 9: false} {
		text := `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
		_, err := claims.Decode([]byte(text))
		require.Equal(t, want, err == nil, "%d levels", depth)
		text = strings.Repeat(`{"a":`, depth-1) + `{}` + strings.Repeat("}", depth-1)
		_, err = claims.Decode([]byte(text))
		require.Equal(t, want, err == nil, "%d levels", depth)
		for _, innermost := range []any{[]any{}, []any{1}, map[string]any{"b": "x"}} {
			v := innermost
			for range depth - 2 {
				v = []any{v}
			}
			_, err = claims.Append(nil, &claims.Claims{Custom: map[string]any{"a": v}})
			require.Equal(t, want, err == nil, "%d levels", depth)
		}
	}
	for ms, want := range map[int64]bool{-1: false, 0: true, 1: true, 253402300799_999: true, 253402300800_000: false, math.MaxInt64: false, math.MinInt64: false} {
		for _, c := range []claims.Claims{{IssuedAt: ms}, {NotBefore: ms}, {ExpiresAt: ms}} {
			b, err := claims.Append(nil, &c)
			require.Equal(t, want, err == nil, "%d", ms)
			require.Equal(t, ms == 0, string(b) == "{}")
			if !want {
				require.ErrorContains(t, err, "out of range")
			}
		}
	}
	for epoch, want := range map[uint64]string{0: "{}", 1: `{"epoch":1}`, math.MaxInt64: `{"epoch":9223372036854775807}`, math.MaxInt64 + 1: ""} {
		b, err := claims.Append(nil, &claims.Claims{Epoch: epoch})
		require.Equal(t, want, string(b))
		if want == "" {
			require.ErrorContains(t, err, "epoch: out of range")
		}
	}
}

// What is written goes behind whatever was there, and a refusal gives nothing.
func TestAppendAfterMuch(t *testing.T) {
	before := strings.Repeat("b", 3*claims.MaxSize)
	c := full()
	alone, err := claims.Append(nil, &c)
	require.NoError(t, err)
	after, err := claims.Append([]byte(before), &c)
	require.NoError(t, err)
	require.Equal(t, before+string(alone), string(after))
	for _, bad := range []claims.Claims{{ExpiresAt: -1}, {Epoch: math.MaxUint64}, {Custom: map[string]any{"sub": 1}}, {Custom: map[string]any{"a": struct{}{}}}, {Issuer: "\xff"}} {
		after, err := claims.Append([]byte(before), &bad)
		require.ErrorIs(t, err, claims.ErrClaims)
		require.Nil(t, after)
	}
}

func TestGrantsAreWrittenAsTheyAre(t *testing.T) {
	for want, grants := range map[string][]claims.Grant{
		`{}`: {},
		`{"authorization_details":[{"type":"a"},{"type":"b","identifiers":["1"]}],"x":1}`:                    {{Type: "a"}, {Type: "b", Identifiers: []string{"1"}}},
		`{"authorization_details":[{"type":"a","actions":["r","w","x"],"identifiers":["1","2","3"]}],"x":1}`: {{Type: "a", Actions: []string{"r", "w", "x"}, Identifiers: []string{"1", "2", "3"}}},
		`{"authorization_details":[{"type":"a","actions":["r"]},{"type":"a"},{"type":"c"}],"x":1}`:           {{Type: "a", Actions: []string{"r"}}, {Type: "a"}, {Type: "c"}},
	} {
		c := claims.Claims{Grants: grants}
		if len(grants) > 0 {
			c.Custom = map[string]any{"x": 1}
		}
		b, err := claims.Append(nil, &c)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
}

// A custom claim is of a type that is read back as it was, at whatever depth.
func TestTypesOfCustomClaims(t *testing.T) {
	for want, value := range map[string]any{
		`null`: nil, `"x"`: "x", `true`: true, `false`: false, `1234567890`: 1234567890, `-9876543210`: int64(-9876543210), `1.5`: 1.5, `-0`: math.Copysign(0, -1), `[]`: []any{}, `{}`: map[string]any{},
		`[1,"a",[null]]`: []any{1, "a", []any{nil}}, `{"a":1,"b":{"c":2},"d":3}`: map[string]any{"d": 3, "a": 1, "b": map[string]any{"c": 2}},
	} {
		b, err := claims.Append(nil, &claims.Claims{Custom: map[string]any{"v": value, "w": 1}})
		require.NoError(t, err)
		require.Equal(t, `{"v":`+want+`,"w":1}`, string(b))
	}
	for _, value := range []any{int32(1), uint(1), []string{"a"}, map[string]string{}, time.Time{}, json.Number("1"), []byte("x"), new(int)} {
		for _, v := range []any{value, []any{value}, map[string]any{"a": []any{1, value, 2}}} {
			_, err := claims.Append(nil, &claims.Claims{Custom: map[string]any{"v": v}})
			require.ErrorContains(t, err, fmt.Sprintf("custom claim of type %T", value))
		}
	}
}

// Which text a refusal has is part of what a person debugs with.
func TestWhatRefusalsSay(t *testing.T) {
	for text, want := range map[string]string{
		``:                                     "want '{'",
		`[]`:                                   "want '{'",
		`{} {}`:                                "something follows the object",
		`{1`:                                   "want a string",
		`{"a"`:                                 "want a colon",
		`{"a":`:                                "not a value",
		`{"a":1`:                               "want a comma or '}'",
		`{"a":[1 2]}`:                          "want a comma or ']'",
		`{"a":"x`:                              "a string without end",
		`{"a":"x\n`:                            "a string without end, or of more than 4096 bytes",
		`{"a":"x\u0041`:                        "a string without end, or of more than 4096 bytes",
		`{"a":"x\u004`:                         "an escape is cut",
		`{"a":"\u00g0"}`:                       "an escape that is not hexadecimal",
		`{"a":"\x"}`:                           "an unknown escape",
		"{\"a\":\"\x01\"}":                     "a control character in a string",
		"{\"a\":\"\\n\x01\"}":                  "a control character in a string",
		`{"a":"\ud83dx"}`:                      "half a surrogate pair",
		`{"a":1.}`:                             "not a number",
		`{"a":1e}`:                             "not a number",
		`{"a":01}`:                             "not a value",
		`{"a":1e999}`:                          "a number out of range",
		`{"a":tru}`:                            "not a value",
		`{"a":1,"a":1}`:                        "a name occurs twice",
		`{"Sub":1}`:                            "a claim differs from a known one in case only",
		`{"sub":""}`:                           "sub: empty",
		`{"scope":7}`:                          "scope: not a string",
		`{"epoch":0}`:                          "epoch: not an integer in range",
		`{"nbf":""}`:                           "nbf: empty",
		`{"authorization_details":[]}`:         "authorization_details: empty",
		`{"authorization_details":[{}]}`:       "authorization_details: a grant without a type",
		`{"authorization_details":[{"x":1}]}`:  "authorization_details: a member that is not known",
		`{"a":` + strings.Repeat("[", 9) + `}`: "nested too deep",
		`{"a":"` + strings.Repeat("x", 4097) + `"}`:                      "a string of more than 4096 bytes",
		`{"a":[1` + strings.Repeat(",1", 64) + `]}`:                      "more than 64 members",
		`{"authorization_details":[{"type":"t","actions":[]}]}`:          "authorization_details: an empty list",
		`{"authorization_details":[{"type":"t","actions":["a","a"]}]}`:   "authorization_details: the same string twice in a list",
		`{"a":{"sub":1,"sub":2}}`:                                        "a name occurs twice",
		`{"sub":"x","b":[}`:                                              "not a value",
		"{\"a\":\"\xff\"}":                                               "invalid UTF-8",
		`{"a":"` + strings.Repeat("x", 5120) + `"}`:                      "more than 5120 bytes",
		`{"authorization_details":[{"type":"t","actions":["a"`:           "authorization_details: want a comma or ']'",
		`{"authorization_details":[{"type":"t","actions":["a"],"type":`:  "authorization_details: a name occurs twice",
		`{"authorization_details":[{"type":"t","identifiers":["a",""]}]`: "authorization_details: empty",
	} {
		c, err := claims.Decode([]byte(text))
		require.ErrorIs(t, err, claims.ErrClaims)
		require.Equal(t, claims.ErrClaims.Error()+": "+want, err.Error(), text)
		require.Zero(t, c, "what was read before the fault is not given away")
	}
}
