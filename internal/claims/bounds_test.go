package claims_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/claims"
	"github.com/stretchr/testify/require"
)

// members are n members of an object, each after a comma.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":0`, i)
	}
	return b.String()
}

func TestDecodeAcceptsUpToItsBounds(t *testing.T) {
	head := `{"a":"` + strings.Repeat("x", 4096) + `","b":"`
	for name, text := range map[string]string{
		"the longest payload":         head + strings.Repeat("y", claims.MaxSize-len(head)-2) + `"}`,
		"a string of 4 KiB":           `{"a":"` + strings.Repeat("x", 4096) + `"}`,
		"one of escapes":              `{"a":"\u0078` + strings.Repeat("x", 4095) + `"}`,
		"64 claims":                   `{"n":1` + members(63) + `}`,
		"64 elements":                 `{"a":[1` + strings.Repeat(",1", 63) + `]}`,
		"8 levels":                    `{"a":` + strings.Repeat("[", 7) + strings.Repeat("]", 7) + `}`,
		"8 levels of objects":         strings.Repeat(`{"a":`, 7) + `{}` + strings.Repeat("}", 7),
		"the greatest epoch":          `{"epoch":9223372036854775807}`,
		"a name in two objects":       `{"a":{"b":1},"b":{"b":1},"c":[{"b":1},{"b":1}]}`,
		"a known name further down":   `{"a":{"SUB":null,"exp":1}}`,
		"an escaped known name":       `{"\u0073ub":"a"}`,
		"a grant with a type only":    `{"authorization_details":[{"type":"t"}]}`,
		"control characters":          `{"a":"` + strings.Repeat(`\n`, claims.MaxSize/2-8) + `"}`,
		"floats that grow if written": `{"a":[` + strings.Repeat(`[1e5`+strings.Repeat(",1e5", 63)+`],`, (claims.MaxSize-32)/len(`[1e5`+strings.Repeat(",1e5", 63)+`],`)) + `12e5]}`,
	} {
		c, err := claims.Decode([]byte(text))
		require.NoError(t, err, name)
		again, err := claims.Append(nil, &c)
		require.NoError(t, err, name)
		back, err := claims.Decode(again)
		require.NoError(t, err, name)
		require.Equal(t, c, back, name)
	}
}

func TestTypesOfNumbers(t *testing.T) {
	for text, want := range map[string]any{
		"0": int64(0), "-7": int64(-7), "9223372036854775807": int64(math.MaxInt64), "-9223372036854775808": int64(math.MinInt64),
		"9223372036854775808": 0x1p63, "-9223372036854775809": -0x1p63, "1.0": 1.0, "1e2": 100.0, "1E-2": 0.01, "-0": math.Copysign(0, -1),
	} {
		c, err := claims.Decode([]byte(`{"n":` + text + `}`))
		require.NoError(t, err, text)
		require.Equal(t, want, c.Custom["n"], text)
		if f, ok := want.(float64); ok {
			require.Equal(t, math.Signbit(f), math.Signbit(c.Custom["n"].(float64)), text)
		}
	}
}

// encoding/json is a second reader of what is valid: both read the same.
func TestDecodeAgreesWithEncodingJSONOnKnownClaims(t *testing.T) {
	type grant struct {
		Type        string   `json:"type"`
		Actions     []string `json:"actions"`
		Identifiers []string `json:"identifiers"`
	}
	var full, plain = full(), claims.Claims{Subject: "ü\t🔑", ExpiresAt: 1, Grants: []claims.Grant{{Type: "t"}, {Type: "t"}}}
	for _, c := range []*claims.Claims{&full, &plain, {}} {
		payload, err := claims.Append(nil, c)
		require.NoError(t, err)
		got, err := claims.Decode(payload)
		require.NoError(t, err)
		var want struct {
			Iss, Sub, Aud, Jti, Scope, Family, Use string
			ClientID                               string `json:"client_id"`
			SubType                                string `json:"sub_type"`
			Iat, Nbf, Exp                          time.Time
			Epoch                                  uint64
			IssEpoch                               uint64  `json:"iss_epoch"`
			Grants                                 []grant `json:"authorization_details"`
		}
		require.NoError(t, json.Unmarshal(payload, &want))
		require.Equal(t, []string{want.Iss, want.Sub, want.Aud, want.Jti, want.Scope, want.Family, want.Use, want.ClientID, want.SubType},
			[]string{got.Issuer, got.Subject, got.Audience, got.ID, got.Scope, got.Family, got.Use, got.ClientID, got.SubjectType})
		require.Equal(t, want.Epoch, got.Epoch)
		require.Equal(t, want.IssEpoch, got.IssuerEpoch)
		for i, at := range []time.Time{want.Iat, want.Nbf, want.Exp} {
			ms := []int64{got.IssuedAt, got.NotBefore, got.ExpiresAt}[i]
			require.True(t, at.IsZero() && ms == 0 || at.UnixMilli() == ms)
		}
		require.Len(t, got.Grants, len(want.Grants))
		for i, g := range want.Grants {
			require.Equal(t, claims.Grant(g), got.Grants[i])
		}
	}
}

func TestErrorsNameTheClaimAndNoValue(t *testing.T) {
	for text, want := range map[string]string{
		`{"sub":7777}`:                     "sub: not a string",
		`{"exp":"7777"}`:                   "exp: not a time of RFC 3339 after 1970-01-01T00:00:00Z",
		`{"epoch":-7777}`:                  "epoch: not an integer in range",
		`{"sub":"7777","sub":"7777"}`:      "sub: a name occurs twice",
		`{"sub":"\u7777\ud777\udfff\q"}`:   "sub: half a surrogate pair",
		`{"authorization_details":7777}`:   "authorization_details: want '['",
		`{"authorization_details":[7777]}`: "authorization_details: want '{'",
		`{"7777":1,"7777":2}`:              "a name occurs twice",
		`{"SUB":"7777"}`:                   "a claim differs from a known one in case only",
		`{"7777":[7777,]}`:                 "not a value",
		`{"sub":"a" 7777}`:                 "want a comma or '}'",
	} {
		_, err := claims.Decode([]byte(text))
		require.ErrorIs(t, err, claims.ErrClaims)
		require.Equal(t, claims.ErrClaims.Error()+": "+want, err.Error(), text)
	}
}

// Any claims that Append writes are read as they were.
func TestRandomClaimsComeBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		c := randomClaims(random)
		payload, err := claims.Append(nil, &c)
		require.NoError(t, err)
		require.True(t, json.Valid(payload))
		again, err := claims.Append(nil, &c)
		require.NoError(t, err)
		require.Equal(t, payload, again)
		back, err := claims.Decode(payload)
		require.NoError(t, err)
		require.Equal(t, c, back)
	}
}

func randomClaims(random *rand.Rand) claims.Claims {
	var c claims.Claims
	for _, field := range []*string{
		&c.Issuer, &c.Subject, &c.Audience, &c.ID, &c.Scope, &c.ClientID, &c.SubjectType, &c.Family, &c.Use,
	} {
		*field = randomText(random)
	}
	for _, field := range []*int64{&c.IssuedAt, &c.NotBefore, &c.ExpiresAt} {
		*field = random.Int64N(2) * random.Int64N(253402300800_000)
	}
	c.Epoch = random.Uint64N(2) * uint64(random.Int64())
	c.IssuerEpoch = random.Uint64N(2) * uint64(random.Int64())
	for range random.IntN(3) {
		g := claims.Grant{Type: "t" + randomText(random)}
		for i := range random.IntN(3) {
			g.Actions = append(g.Actions, fmt.Sprint(i, randomText(random)))
			g.Identifiers = append(g.Identifiers, fmt.Sprint(i, randomText(random)))
		}
		c.Grants = append(c.Grants, g)
	}
	for i := range random.IntN(4) {
		if c.Custom == nil {
			c.Custom = map[string]any{}
		}
		c.Custom[fmt.Sprint(i, randomText(random))] = randomValue(random, 3)
	}
	return c
}

func randomText(random *rand.Rand) string {
	alphabet := []rune("ab \"\\/\x00\b\t\n\v\f\r\x1f\x7fßſü\u2028\ufeff\ufffd🔑\U0010ffff")
	text := make([]rune, random.IntN(8))
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(text)
}

func randomValue(random *rand.Rand, depth int) any {
	switch random.IntN(6 + min(depth, 1)*2) {
	case 0:
		return nil
	case 1:
		return random.IntN(2) == 0
	case 2:
		return randomText(random)
	case 3:
		return int64(random.Uint64()) >> random.IntN(64)
	case 4:
		return float64(random.IntN(4000)-2000) * math.Pow10(random.IntN(40)-20)
	case 5:
		f := math.Float64frombits(random.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return 0.5
		}
		return f
	case 6:
		list := []any{}
		for range random.IntN(4) {
			list = append(list, randomValue(random, depth-1))
		}
		return list
	}
	object := map[string]any{}
	for range random.IntN(4) {
		object[randomText(random)] = randomValue(random, depth-1)
	}
	return object
}
