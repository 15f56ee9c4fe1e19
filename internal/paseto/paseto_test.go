package paseto_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	oracle "aidanwoods.dev/go-paseto"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

// pair is a key of each protocol, with what opens its tokens.
type pair struct {
	sealer paseto.Sealer
	opener paseto.Opener
}

func pairs(t testing.TB) map[paseto.Protocol]pair {
	t.Helper()
	all := make(map[paseto.Protocol]pair)
	for _, p := range []paseto.Protocol{paseto.V4Local, paseto.V2Local} {
		k, err := paseto.NewSymmetricKey(p)
		require.NoError(t, err)
		all[p] = pair{k, k}
	}
	for _, p := range []paseto.Protocol{paseto.V4Public, paseto.V2Public} {
		k, err := paseto.NewSecretKey(p)
		require.NoError(t, err)
		all[p] = pair{k, k.Public()}
	}
	return all
}

func open(k paseto.Opener, text, implicit string) ([]byte, error) {
	token, err := paseto.Parse(text)
	if err != nil {
		return nil, err
	}
	return k.Open(token, implicit)
}

func TestSealAndOpen(t *testing.T) {
	for p, keys := range pairs(t) {
		for _, payload := range []string{"", "x", `{"sub":"user-7"}`, strings.Repeat("long ", 1000), "\x00\xff"} {
			for _, footer := range []string{"", "f", `{"kid":"k4.lid.x"}`} {
				for _, implicit := range []string{"", "tenant 1"} {
					if implicit != "" && p.Version() == 2 {
						_, err := keys.sealer.Seal(payload, footer, implicit)
						require.ErrorIs(t, err, paseto.ErrKey, "version 2 has no implicit assertion")
						continue
					}
					text, err := keys.sealer.Seal(payload, footer, implicit)
					require.NoError(t, err)
					token, err := paseto.Parse(text)
					require.NoError(t, err)
					require.Equal(t, p, token.Protocol())
					require.Equal(t, footer, string(token.Footer()))
					got, err := keys.opener.Open(token, implicit)
					require.NoError(t, err)
					require.Equal(t, payload, string(got))
					if p.Version() == 4 {
						_, err = keys.opener.Open(token, implicit+"x")
						require.ErrorIs(t, err, paseto.ErrSeal, "another assertion")
					}
				}
			}
		}
	}
}

// What a signed token says can be read by anybody, and written by anybody.
func TestThePayloadThatNobodyHasChecked(t *testing.T) {
	for p, k := range pairs(t) {
		t.Run(p.String(), func(t *testing.T) {
			text, err := k.sealer.Seal(`{"a":1}`, "", "")
			require.NoError(t, err)
			token, err := paseto.Parse(text)
			require.NoError(t, err)
			if p.Local() {
				require.Nil(t, token.InsecurePayload())
				return
			}
			require.Equal(t, `{"a":1}`, string(token.InsecurePayload()))
		})
	}
}

// TestAKeyIsForOneProtocol offers each key the tokens of every other, among them
// a public key's bytes as a symmetric key.
func TestAKeyIsForOneProtocol(t *testing.T) {
	all := pairs(t)
	for p, keys := range all {
		text, err := keys.sealer.Seal("payload", "", "")
		require.NoError(t, err)
		for q, others := range all {
			if p != q {
				_, err := open(others.opener, text, "")
				require.ErrorIs(t, err, paseto.ErrProtocol, "%v by a key for %v", p, q)
			}
		}
		stranger := pairs(t)[p]
		_, err = open(stranger.opener, text, "")
		require.ErrorIs(t, err, paseto.ErrSeal)
	}
	for _, p := range []paseto.Protocol{paseto.V4Local, paseto.V2Local} {
		public := all[paseto.V4Public].opener
		asSymmetric, err := paseto.SymmetricKeyFrom(p, paseto.Bytes(public))
		require.NoError(t, err, "32 bytes are 32 bytes")
		forged, err := asSymmetric.Seal("forged", "", "")
		require.NoError(t, err)
		_, err = open(public, forged, "")
		require.ErrorIs(t, err, paseto.ErrProtocol)
		_, err = paseto.ParseSymmetricKey(p, public.(paseto.PublicKey).PASERK())
		require.ErrorIs(t, err, paseto.ErrPASERK)
	}
}

// TestATokenHasOneSpelling changes a token in every way that a lax decoder lets
// through, and in every single byte.
func TestATokenHasOneSpelling(t *testing.T) {
	for p, keys := range pairs(t) {
		for _, footer := range []string{"", "footer", "foote", "foot"} {
			for _, payload := range []string{"payload", "payloa", "paylo"} {
				text, err := keys.sealer.Seal(payload, footer, "")
				require.NoError(t, err)
				refused := func(changed, what string) {
					if changed == text {
						return
					}
					_, err := open(keys.opener, changed, "")
					require.Error(t, err, "%v, %s: %q", p, what, changed)
				}
				for i := range len(text) {
					for _, c := range []byte("A-z0=.\n\r \x00\xff") {
						refused(text[:i]+string([]byte{c})+text[i+1:], "a byte changed")
						refused(text[:i]+string([]byte{c})+text[i:], "a byte inserted")
					}
					refused(text[:i]+text[i+1:], "a byte removed")
				}
				for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
					refused(text[:len(text)-1]+string(c), "the last character")
				}
				for _, end := range []string{".", "..", "=", "==", ".A", ".bnVsbA", "\n"} {
					refused(text+end, "something added")
				}
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	body := strings.Repeat("A", 128)
	for text, want := range map[string]error{
		"":                      paseto.ErrFormat,
		"v4.public":             paseto.ErrFormat,
		"v4.public.":            paseto.ErrFormat,
		"v4.public.AAAA":        paseto.ErrFormat,
		"V4.public." + body:     paseto.ErrFormat,
		" v4.public." + body:    paseto.ErrFormat,
		"v4.secret." + body:     paseto.ErrFormat,
		"v1.local." + body:      paseto.ErrProtocol,
		"v1.public." + body:     paseto.ErrProtocol,
		"v3.local." + body:      paseto.ErrProtocol,
		"v3.public." + body:     paseto.ErrProtocol,
		"v5.public." + body:     paseto.ErrProtocol,
		"v4.public." + body[1:]: nil, // 127 characters, no bits left over
		"v4.local." + strings.Repeat("A", paseto.MaxToken):                  paseto.ErrSize,
		"v4.local." + body + "." + strings.Repeat("A", paseto.MaxFooter+4):  paseto.ErrSize,
		"v4.local." + body + "." + strings.Repeat("A", paseto.MaxFooter):    nil,
		"v4.local." + body + "." + body + "." + body:                        paseto.ErrFormat,
		"v4.local." + strings.Repeat("A", 85):                               paseto.ErrFormat,
		"v4.public." + strings.Repeat("A", 84):                              paseto.ErrFormat,
		"eyJhbGciOiJub25lIn0.e30.":                                          paseto.ErrFormat,
		"acme_live_10ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz0123451Hls8h": paseto.ErrFormat,
	} {
		_, err := paseto.Parse(text)
		if want == nil {
			require.NoError(t, err, text)
			continue
		}
		require.Equal(t, want, err, text)
	}
	text := "v4.public." + body
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := paseto.Parse(text); err != nil {
			t.Fatal(err)
		}
	}))
}

// TestAgainstGoPaseto has aidanwoods.dev/go-paseto open what we seal, and seal
// what we open.
func TestAgainstGoPaseto(t *testing.T) {
	const footer, implicit = `{"kid":"x"}`, "issuer"
	claims := map[string]string{"sub": "user-7", "exp": "2026-11-23T10:00:00Z"}
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	parser := oracle.MakeParser(nil)

	sym, err := paseto.NewSymmetricKey(paseto.V4Local)
	require.NoError(t, err)
	theirs, err := oracle.V4SymmetricKeyFromBytes(paseto.Bytes(sym))
	require.NoError(t, err)
	text, err := sym.Seal(string(payload), footer, implicit)
	require.NoError(t, err)
	token, err := parser.ParseV4Local(theirs, text, []byte(implicit))
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(token.ClaimsJSON()))
	require.Equal(t, footer, string(token.Footer()))
	got, err := open(sym, token.V4Encrypt(theirs, []byte(implicit)), implicit)
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(got))

	sec, err := paseto.NewSecretKey(paseto.V4Public)
	require.NoError(t, err)
	theirSecret, err := oracle.NewV4AsymmetricSecretKeyFromBytes(paseto.Bytes(sec))
	require.NoError(t, err)
	text, err = sec.Seal(string(payload), footer, implicit)
	require.NoError(t, err)
	token, err = parser.ParseV4Public(theirSecret.Public(), text, []byte(implicit))
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(token.ClaimsJSON()))
	got, err = open(sec.Public(), token.V4Sign(theirSecret, []byte(implicit)), implicit)
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(got))

	// And version 2, where our own engine is o1egl/paseto.
	sym2, err := paseto.NewSymmetricKey(paseto.V2Local)
	require.NoError(t, err)
	theirs2, err := oracle.V2SymmetricKeyFromBytes(paseto.Bytes(sym2))
	require.NoError(t, err)
	text, err = sym2.Seal(string(payload), footer, "")
	require.NoError(t, err)
	token, err = parser.ParseV2Local(theirs2, text)
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(token.ClaimsJSON()))
	got, err = open(sym2, token.V2Encrypt(theirs2), "")
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(got))
}

func TestKeysOfTheWrongSize(t *testing.T) {
	for n := range 130 {
		b := make([]byte, n)
		for p := range pairs(t) {
			_, err := paseto.SymmetricKeyFrom(p, b)
			require.Equal(t, p.Local() && n == 32, err == nil, "%v %d", p, n)
			_, err = paseto.PublicKeyFrom(p, b)
			require.Equal(t, !p.Local() && n == 32, err == nil, "%v %d", p, n)
			_, err = paseto.SecretKeyFrom(p, b)
			require.ErrorIs(t, err, paseto.ErrKey)
		}
	}
	good, err := paseto.NewSecretKey(paseto.V4Public)
	require.NoError(t, err)
	b := append([]byte(nil), paseto.Bytes(good)...)
	b[40] ^= 1
	_, err = paseto.SecretKeyFrom(paseto.V4Public, b)
	require.ErrorContains(t, err, "public half")
}

func TestZeroKeysDoNothing(t *testing.T) {
	text, err := pairs(t)[paseto.V4Local].sealer.Seal("x", "", "")
	require.NoError(t, err)
	for _, opener := range []paseto.Opener{paseto.SymmetricKey{}, paseto.PublicKey{}} {
		_, err := open(opener, text, "")
		require.ErrorIs(t, err, paseto.ErrKey)
	}
	for _, sealer := range []paseto.Sealer{paseto.SymmetricKey{}, paseto.SecretKey{}} {
		_, err := sealer.Seal("x", "", "")
		require.ErrorIs(t, err, paseto.ErrKey)
	}
	_, err = paseto.SymmetricKey{}.Wrap(paseto.SymmetricKey{})
	require.ErrorIs(t, err, paseto.ErrKey)
	_, err = paseto.SecretKey{}.Unseal(paseto.V4Local, "k4.seal.AAAA")
	require.ErrorIs(t, err, paseto.ErrKey)
	_, err = pairs(t)[paseto.V4Public].opener.Open(paseto.Token{}, "")
	require.ErrorIs(t, err, paseto.ErrFormat)
}

// TestWeakKeys: under a public key of low order anybody can sign.
func TestWeakKeys(t *testing.T) {
	for _, weak := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"0200000000000000000000000000000000000000000000000000000000000000", // no point at all
	} {
		b, err := hex.DecodeString(weak)
		require.NoError(t, err)
		k, err := paseto.PublicKeyFrom(paseto.V4Public, b)
		require.NoError(t, err)
		require.True(t, k.Weak(), weak)
	}
	good := pairs(t)
	require.False(t, good[paseto.V4Public].opener.(paseto.PublicKey).Weak())
	require.False(t, good[paseto.V4Local].opener.(paseto.SymmetricKey).Weak())
	zero, err := paseto.SymmetricKeyFrom(paseto.V4Local, make([]byte, 32))
	require.NoError(t, err)
	require.True(t, zero.Weak())
}

func TestKeysAreNotShown(t *testing.T) {
	sym, sec := pairs(t)[paseto.V4Local].sealer, pairs(t)[paseto.V4Public].sealer
	for _, k := range []any{sym, sec} {
		raw := paseto.Bytes(k)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			require.Equal(t, "paseto key [redacted]", fmt.Sprintf(verb, k))
		}
		_, err := json.Marshal(k)
		require.Error(t, err)
		require.NotContains(t, err.Error(), base64.RawURLEncoding.EncodeToString(raw))
	}
	public := sec.(paseto.SecretKey).Public()
	require.Equal(t, public.ID(), fmt.Sprint(public))
}

func FuzzOpen(f *testing.F) {
	all := pairs(f)
	sealed := make(map[string]bool)
	for _, keys := range all {
		text, err := keys.sealer.Seal(`{"sub":"user-7"}`, `{"kid":"x"}`, "")
		require.NoError(f, err)
		sealed[text] = true
		f.Add(text)
		f.Add(text[:len(text)-3])
	}
	f.Add("v4.local.")
	f.Add("v2.public.AAAA.")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := paseto.Parse(text)
		if err != nil {
			return
		}
		for p, keys := range all {
			_, err := keys.opener.Open(token, "")
			if p != token.Protocol() {
				require.ErrorIs(t, err, paseto.ErrProtocol)
				continue
			}
			if !sealed[text] {
				require.ErrorIs(t, err, paseto.ErrSeal, "the keys are of this process, and have sealed nothing else")
			}
		}
	})
}

func FuzzPASERK(f *testing.F) {
	all := pairs(f)
	sym, sec := all[paseto.V4Local].sealer.(paseto.SymmetricKey), all[paseto.V4Public].sealer.(paseto.SecretKey)
	wrapped, err := sec.Wrap(sym)
	require.NoError(f, err)
	sealed, err := sym.SealTo(sec.Public())
	require.NoError(f, err)
	for _, text := range []string{sym.PASERK(), sec.PASERK(), sec.Public().PASERK(), sym.ID(), wrapped, sealed, "k4.local.", "k2.secret-wrap.pie.AAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for p := range all {
			if k, err := paseto.ParseSymmetricKey(p, text); err == nil {
				require.Equal(t, text, k.PASERK())
			}
			if k, err := paseto.ParseSecretKey(p, text); err == nil {
				require.Equal(t, text, k.PASERK())
			}
			if k, err := paseto.ParsePublicKey(p, text); err == nil {
				require.Equal(t, text, k.PASERK())
				k.Weak()
			}
			_, _ = paseto.UnwrapSecretKey(p, text, sym)
			_, _ = paseto.UnwrapSymmetricKey(p, text, sym)
			_, _ = sec.Unseal(p, text)
			if id, err := paseto.ParseID(p, text, "lid", "pid"); err == nil {
				require.Equal(t, text, id)
			}
		}
	})
}
