package claims_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/claims"
	"github.com/stretchr/testify/require"
)

func full() claims.Claims {
	return claims.Claims{
		Issuer: "acme", Subject: "user-7", Audience: "api", ID: "0ZqKJ3vT9xWm4cRb",
		IssuedAt: 1795420800_000, NotBefore: 1795420800_000, ExpiresAt: 1795421700_000,
		Scope: "orders:read orders:list", ClientID: "0ZqKJ3vT9xWm4cRc", SubjectType: "user", Family: "0ZqKJ3vT9xWm4cRd",
		Epoch: 1795420800123, IssuerEpoch: 1795420800456, Use: "access",
		Grants: []claims.Grant{{Type: "orders", Actions: []string{"read"}, Identifiers: []string{"42", "43"}}},
		Custom: map[string]any{
			"admin": true, "n": int64(-7), "ratio": 1.5, "list": []any{"a", int64(1), nil},
			"org": map[string]any{"name": "A \"quoted\" ü 🔑 \n", "deep": map[string]any{}},
		},
	}
}

func TestOneFormForEachToken(t *testing.T) {
	c := full()
	b, err := claims.Append(nil, &c)
	require.NoError(t, err)
	require.Equal(t, `{"iss":"acme","sub":"user-7","aud":"api","jti":"0ZqKJ3vT9xWm4cRb",`+
		`"iat":"2026-11-23T08:00:00Z","nbf":"2026-11-23T08:00:00Z","exp":"2026-11-23T08:15:00Z",`+
		`"scope":"orders:read orders:list","client_id":"0ZqKJ3vT9xWm4cRc","sub_type":"user","family":"0ZqKJ3vT9xWm4cRd",`+
		`"epoch":1795420800123,"iss_epoch":1795420800456,"use":"access",`+
		`"authorization_details":[{"type":"orders","actions":["read"],"identifiers":["42","43"]}],`+
		`"admin":true,"list":["a",1,null],"n":-7,"org":{"deep":{},"name":"A \"quoted\" ü 🔑 \n"},"ratio":1.5}`, string(b))
	got, err := claims.Decode(b)
	require.NoError(t, err)
	require.Equal(t, c, got)
	appended, err := claims.Append([]byte("before "), &c)
	require.NoError(t, err)
	require.Equal(t, "before "+string(b), string(appended))
}

func TestDecodeReturnsNoPartOfItsArgument(t *testing.T) {
	c := full()
	b, err := claims.Append(nil, &c)
	require.NoError(t, err)
	got, err := claims.Decode(b)
	require.NoError(t, err)
	clear(b)
	require.Equal(t, c, got)
}

func TestDecodeAgreesWithEncodingJSON(t *testing.T) {
	for _, text := range []string{
		`{}`, " {\n\t\"a\" : 1 , \"b\":[ ] }\r\n", `{"a":"\u00fc\ud83d\udd11\/\b\f\n\r\t\"\\"}`, `{"a":[[[[[]]]]],"b":{"c":{"d":null}}}`,
		`{"a":1e2,"b":-0.5,"c":0,"d":123456789012345678901234567890,"e":true,"f":false}`, `{"":"an empty name"}`, `{"ß":"x","SS":"y"}`,
	} {
		got, err := claims.Decode([]byte(text))
		require.NoError(t, err, text)
		var want map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &want))
		ours, err := json.Marshal(got.Custom)
		require.NoError(t, err)
		if got.Custom == nil {
			ours = []byte("{}")
		}
		theirs, err := json.Marshal(want)
		require.NoError(t, err)
		require.JSONEq(t, string(theirs), string(ours), text)
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat("[", 8) + strings.Repeat("]", 8)
	many := "1" + strings.Repeat(",1", 64)
	for name, text := range map[string]string{
		"nothing":                      ``,
		"null":                         `null`,
		"an array":                     `[]`,
		"a string":                     `"x"`,
		"an object that is cut":        `{"a":1`,
		"something after it":           `{} {}`,
		"a comma too many":             `{"a":1,}`,
		"no comma":                     `{"a":1 "b":2}`,
		"no colon":                     `{"a" 1}`,
		"a name that is no string":     `{a:1}`,
		"a comment":                    `{/**/}`,
		"a name twice":                 `{"a":1,"a":2}`,
		"a known name twice":           `{"sub":"a","sub":"a"}`,
		"a name twice, once escaped":   `{"a":1,"\u0061":2}`,
		"a name twice further down":    `{"a":{"b":1,"b":1}}`,
		"a known name in other case":   `{"EXP":"2026-11-23T08:00:00Z"}`,
		"a known name in folded case":  `{"i\u017fs":"x"}`,
		"invalid UTF-8":                "{\"a\":\"\xff\"}",
		"half a surrogate pair":        `{"a":"\ud83d"}`,
		"the wrong half":               `{"a":"\udd11\ud83d"}`,
		"a surrogate and a letter":     `{"a":"\ud83dx"}`,
		"an escape that is cut":        `{"a":"\u00`,
		"an unknown escape":            `{"a":"\x41"}`,
		"a control character":          "{\"a\":\"\n\"}",
		"a number with a zero":         `{"a":01}`,
		"a number with a plus":         `{"a":+1}`,
		"a number without digits":      `{"a":-}`,
		"a point without digits":       `{"a":1.}`,
		"an exponent without digits":   `{"a":1e}`,
		"a number out of range":        `{"a":1e999}`,
		"NaN":                          `{"a":NaN}`,
		"nested too deep":              `{"a":` + deep + `}`,
		"too many members":             `{"a":[` + many + `]}`,
		"a string too long":            `{"a":"` + strings.Repeat("x", 4097) + `"}`,
		"an escaped string too long":   `{"a":"\n` + strings.Repeat("x", 4097) + `"}`,
		"too long":                     `{"a":"` + strings.Repeat("x", 4000) + `","b":"` + strings.Repeat("x", 4000) + `","c":"` + strings.Repeat("x", 400) + `"}`,
		"iss empty":                    `{"iss":""}`,
		"jti empty":                    `{"jti":""}`,
		"client_id empty":              `{"client_id":""}`,
		"a grant type null":            `{"authorization_details":[{"type":null}]}`,
		"a grant with an empty type":   `{"authorization_details":[{"type":""}]}`,
		"a grant of no object":         `{"authorization_details":["t"]}`,
		"epoch with an exponent":       `{"epoch":1e3}`,
		"epoch with a plus":            `{"epoch":+1}`,
		"too many claims":              `{"n":1` + members(64) + `}`,
		"too many in an object":        `{"a":{"n":1` + members(64) + `}}`,
		"a byte order mark":            "\ufeff{}",
		"a space that JSON lacks":      "\u00a0{}",
		"minutes of 60":                `{"exp":"2026-11-23T08:60:00Z"}`,
		"an offset of 60 minutes":      `{"exp":"2026-11-23T08:00:00+00:60"}`,
		"a year of five digits":        `{"exp":"10000-01-01T00:00:00Z"}`,
		"sub null":                     `{"sub":null}`,
		"sub a number":                 `{"sub":7}`,
		"sub empty":                    `{"sub":""}`,
		"aud a list":                   `{"aud":["api"]}`,
		"scope a list":                 `{"scope":["a"]}`,
		"iat a number":                 `{"iat":1795420800}`,
		"epoch text":                   `{"epoch":"1"}`,
		"epoch negative":               `{"epoch":-1}`,
		"epoch zero":                   `{"epoch":0}`,
		"epoch with a fraction":        `{"epoch":1.0}`,
		"epoch too great":              `{"epoch":9223372036854775808}`,
		"issuer's epoch zero":          `{"iss_epoch":0}`,
		"issuer's epoch text":          `{"iss_epoch":"1"}`,
		"grants an object":             `{"authorization_details":{}}`,
		"grants empty":                 `{"authorization_details":[]}`,
		"a grant without a type":       `{"authorization_details":[{"actions":["a"]}]}`,
		"a grant with more":            `{"authorization_details":[{"type":"t","locations":["x"]}]}`,
		"a grant with actions null":    `{"authorization_details":[{"type":"t","actions":null}]}`,
		"a grant with an action twice": `{"authorization_details":[{"type":"t","actions":["a","a"]}]}`,
		"a grant with an empty action": `{"authorization_details":[{"type":"t","actions":[""]}]}`,
		"a grant with no identifiers":  `{"authorization_details":[{"type":"t","identifiers":[]}]}`,
		"a grant with type twice":      `{"authorization_details":[{"type":"t","type":"t"}]}`,
		"a time in lower case":         `{"exp":"2026-11-23t08:00:00z"}`,
		"a time with a space":          `{"exp":"2026-11-23 08:00:00Z"}`,
		"a time with a comma":          `{"exp":"2026-11-23T08:00:00,5Z"}`,
		"a time without zone":          `{"exp":"2026-11-23T08:00:00"}`,
		"a time with a short zone":     `{"exp":"2026-11-23T08:00:00+01"}`,
		"a time with a great zone":     `{"exp":"2026-11-23T08:00:00+24:00"}`,
		"a time with 24 hours":         `{"exp":"2026-11-23T24:00:00Z"}`,
		"a leap second":                `{"exp":"2026-12-31T23:59:60Z"}`,
		"30 February":                  `{"exp":"2028-02-30T00:00:00Z"}`,
		"29 February of no leap year":  `{"exp":"2100-02-29T00:00:00Z"}`,
		"month 13":                     `{"exp":"2026-13-01T00:00:00Z"}`,
		"day 0":                        `{"exp":"2026-11-00T00:00:00Z"}`,
		"the year 1969":                `{"exp":"1969-12-31T23:59:59Z"}`,
		"the first instant":            `{"exp":"1970-01-01T00:00:00Z"}`,
		"before it, by the zone":       `{"exp":"1970-01-01T00:00:00+01:00"}`,
		"ten digits of a fraction":     `{"exp":"2026-11-23T08:00:00.1234567890Z"}`,
		"a point and no fraction":      `{"exp":"2026-11-23T08:00:00.Z"}`,
		"a letter among digits":        `{"exp":"2026-11-2xT08:00:00Z"}`,
		"a year beyond, by rounding":   `{"iat":"9999-12-31T23:59:59.9995Z"}`,
		"a year beyond, by the zone":   `{"exp":"9999-12-31T23:59:59-00:01"}`,
		"a time and more":              `{"exp":"2026-11-23T08:00:00Z "}`,
	} {
		_, err := claims.Decode([]byte(text))
		require.ErrorIs(t, err, claims.ErrClaims, name)
	}
}

func TestInstants(t *testing.T) {
	for text, want := range map[string]struct{ from, to int64 }{
		"2026-11-23T08:00:00Z":           {1795420800_000, 1795420800_000},
		"2026-11-23T08:00:00.0Z":         {1795420800_000, 1795420800_000},
		"2026-11-23T08:00:00.000000001Z": {1795420800_001, 1795420800_000},
		"2026-11-23T08:00:00.9Z":         {1795420800_900, 1795420800_900},
		"2026-11-23T08:00:00.07Z":        {1795420800_070, 1795420800_070},
		"2026-11-23T08:00:00.123456789Z": {1795420800_124, 1795420800_123},
		"2026-11-23T08:00:00.123000000Z": {1795420800_123, 1795420800_123},
		"2026-11-23T08:00:00.12300000Z":  {1795420800_123, 1795420800_123},
		"2026-11-23T08:00:00.1230Z":      {1795420800_123, 1795420800_123},
		"2026-11-23T09:30:00.5+01:30":    {1795420800_500, 1795420800_500},
		"2026-11-22T23:00:00-09:00":      {1795420800_000, 1795420800_000},
		"2000-02-29T23:59:59Z":           {951868799_000, 951868799_000},
		"1970-01-01T00:00:00.001Z":       {1, 1},
		"9999-12-31T23:59:59.999Z":       {253402300799_999, 253402300799_999},
	} {
		got, err := claims.Decode(fmt.Appendf(nil, `{"nbf":%q,"exp":%q}`, text, text))
		require.NoError(t, err, text)
		require.Equal(t, want.from, got.NotBefore, "%s begins", text)
		require.Equal(t, want.to, got.ExpiresAt, "%s ends", text)
	}
	// Every day of the calendar, against package time.
	for day := time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC); day.Year() < 2405; day = day.AddDate(0, 0, 1) {
		got, err := claims.Decode([]byte(`{"exp":"` + day.Format(time.RFC3339) + `"}`))
		require.NoError(t, err)
		if got.ExpiresAt != day.UnixMilli() {
			t.Fatalf("%v is read as %d", day, got.ExpiresAt)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, custom := range map[string]any{
		"a channel":        make(chan int),
		"a struct":         struct{}{},
		"not a number":     math.NaN(),
		"infinity":         math.Inf(1),
		"invalid UTF-8":    "\xff",
		"too deep":         []any{[]any{[]any{[]any{[]any{[]any{[]any{[]any{}}}}}}}},
		"too long":         strings.Repeat("x", 5000),
		"a map of structs": map[string]any{"a": struct{}{}},
	} {
		_, err := claims.Append(nil, &claims.Claims{Custom: map[string]any{"x": custom}})
		require.ErrorIs(t, err, claims.ErrClaims, name)
	}
	// Whether the known claim is there or not, and with a value that would suit it.
	for reserved, value := range map[string]any{
		"sub": "root", "iss": "x", "aud": "x", "jti": "x", "iat": "2026-11-23T08:00:00Z", "nbf": "2026-11-23T08:00:00Z",
		"exp": "2026-11-23T08:00:00Z", "scope": "admin", "client_id": "x", "sub_type": "x", "family": "x", "epoch": int64(9),
		"use": "access", "authorization_details": []any{map[string]any{"type": "t"}}, "Exp": 1, "EPOCH": 1, "i\u017fs": "x",
	} {
		for _, c := range []claims.Claims{{}, full()} {
			c.Custom = map[string]any{reserved: value}
			_, err := claims.Append(nil, &c)
			require.ErrorIs(t, err, claims.ErrClaims, reserved)
		}
	}
	endless := map[string]any{}
	for i := range 64 {
		endless[fmt.Sprint(i)] = endless
	}
	_, err := claims.Append(nil, &claims.Claims{Custom: endless})
	require.ErrorIs(t, err, claims.ErrClaims)
	for _, c := range []claims.Claims{
		{ExpiresAt: -1}, {ExpiresAt: 253402300800_000}, {Epoch: math.MaxUint64}, {IssuerEpoch: math.MaxUint64},
		{Grants: []claims.Grant{{}}}, {Grants: []claims.Grant{{Type: "t", Actions: []string{"a", "a"}}}},
	} {
		_, err := claims.Append(nil, &c)
		require.ErrorIs(t, err, claims.ErrClaims)
	}
}

func FuzzDecode(f *testing.F) {
	c := full()
	b, err := claims.Append(nil, &c)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := claims.Decode(payload)
		if err != nil {
			return
		}
		require.True(t, json.Valid(payload))
		again, err := claims.Append(nil, &c)
		require.NoError(t, err)
		require.LessOrEqual(t, len(again), len(payload))
		back, err := claims.Decode(again)
		require.NoError(t, err)
		require.Equal(t, c, back)
	})
}

func BenchmarkDecode(b *testing.B) {
	c := full()
	c.Custom = nil
	payload, err := claims.Append(nil, &c)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		got, err := claims.Decode(payload)
		if err != nil || got.Subject != "user-7" {
			b.Fatal(err)
		}
	}
}
