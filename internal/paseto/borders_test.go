package paseto_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

func TestProtocols(t *testing.T) {
	for p, want := range map[paseto.Protocol]struct {
		name    string
		version int
		local   bool
		valid   bool
	}{
		paseto.V4Local:  {"v4.local", 4, true, true},
		paseto.V4Public: {"v4.public", 4, false, true},
		paseto.V2Local:  {"v2.local", 2, true, true},
		paseto.V2Public: {"v2.public", 2, false, true},
		0:               {name: "paseto.Protocol(0)", version: 4},
		5:               {name: "paseto.Protocol(5)", version: 4},
	} {
		require.Equal(t, want.name, p.String())
		require.Equal(t, want.valid, p.Valid(), want.name)
		require.Equal(t, want.local, p.Local(), want.name)
		if want.valid {
			require.Equal(t, want.version, p.Version(), want.name)
		}
	}
}

// What sealing adds is the least that a body can be: of v2.local a nonce of 24 bytes
// and a tag of 16, of the others 64 bytes.
func TestTheShortestBody(t *testing.T) {
	for header, least := range map[string]int{"v4.local.": 86, "v4.public.": 86, "v2.local.": 54, "v2.public.": 86} {
		for n := range 100 {
			_, err := paseto.Parse(header + strings.Repeat("A", n))
			if n < least || n%4 == 1 {
				require.Equal(t, paseto.ErrFormat, err, "%s %d", header, n)
				continue
			}
			require.NoError(t, err, "%s %d", header, n)
		}
	}
}

func TestTheLongestTokenAndFooter(t *testing.T) {
	token := func(n int) string { return "v4.local." + strings.Repeat("A", n-len("v4.local.")) }
	_, err := paseto.Parse(token(8192))
	require.NoError(t, err)
	_, err = paseto.Parse(token(8193))
	require.Equal(t, paseto.ErrSize, err)
	for n, want := range map[int]error{508: nil, 511: nil, 512: nil, 514: paseto.ErrSize, 515: paseto.ErrSize, 513: paseto.ErrSize} {
		_, err := paseto.Parse(token(200) + "." + strings.Repeat("A", n))
		require.Equal(t, want, err, "a footer of %d characters", n)
	}
	_, err = paseto.Parse("v4.local.." + strings.Repeat("A", 514))
	require.Equal(t, paseto.ErrSize, err, "whatever the body is")
}

// What other versions write is known for what it is, so that a caller can say that
// the version is the fault. Everything else is no token.
func TestWhatLooksLikeAToken(t *testing.T) {
	const body = ".AAAA"
	for version, want := range map[string]error{
		"v1": paseto.ErrProtocol, "v3": paseto.ErrProtocol, "v5": paseto.ErrProtocol, "v9": paseto.ErrProtocol, "v10": paseto.ErrProtocol, "v99": paseto.ErrProtocol,
		"v": paseto.ErrFormat, "v0": paseto.ErrFormat, "v:": paseto.ErrFormat, "v/": paseto.ErrFormat, "v100": paseto.ErrFormat, "": paseto.ErrFormat,
		"u1": paseto.ErrFormat, "w1": paseto.ErrFormat, "V1": paseto.ErrFormat, "1": paseto.ErrFormat, "11": paseto.ErrFormat,
	} {
		for _, purpose := range []string{".local", ".public"} {
			_, err := paseto.Parse(version + purpose + body)
			require.Equal(t, want, err, "%q%s", version, purpose)
		}
		for _, none := range []string{"", ".", "..", ".local", ".public", ".secret" + body, ".Local" + body, "local.", "." + body} {
			_, err := paseto.Parse(version + none)
			require.Equal(t, paseto.ErrFormat, err, "%q", version+none)
		}
	}
}

// Bits that a last character has left over are zero, and no other byte is skipped:
// what is written in two ways could be revoked in one and used in the other.
func TestTheSpellingOfBase64(t *testing.T) {
	sound := func(s string) bool {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		return err == nil && base64.RawURLEncoding.EncodeToString(b) == s
	}
	for n := 88; n < 92; n++ {
		for place := n - 4; place < n; place++ {
			for c := range 256 {
				body := strings.Repeat("A", place) + string([]byte{byte(c)}) + strings.Repeat("A", n-place-1)
				if c == '.' {
					continue
				}
				_, err := paseto.Parse("v4.local." + body)
				require.Equal(t, sound(body), err == nil, "%d characters, %#x in place %d", n, c, place)
				_, err = paseto.Parse("v4.local." + strings.Repeat("A", 88) + "." + body)
				require.Equal(t, sound(body), err == nil, "a footer of %d characters, %#x in place %d", n, c, place)
			}
		}
	}
}

// A token without a footer has none, rather than an empty one.
func TestNoFooterIsNone(t *testing.T) {
	token, err := paseto.Parse("v4.local." + strings.Repeat("A", 88))
	require.NoError(t, err)
	require.Nil(t, token.Footer())
	require.Nil(t, paseto.Token{}.Footer())
}

// known are keys and what PASERK writes for them, from the vectors of
// paseto-standard (test-vectors, folder PASERK, the second of each file).
var known = struct{ key, seed, ones, sealing string }{
	key:     "707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f",
	seed:    "707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f1ce56a48c82ff99162a14bc544612674e5d61fb9317e65d4055780fdbcb4dc35",
	ones:    strings.Repeat("ff", 32),
	sealing: "a770cf90f55d8a6dec51190eb640cb25ce31f7e5eb87a00ca9859022e6da9518a0fbc3dc2f99a538b40fb7616a83cf4276b6cf223fff5a2c2d3236235eb87dc7",
}

func TestPASERKIsFixed(t *testing.T) {
	for version, texts := range map[int]map[string]string{
		2: {
			"local": "k2.local.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8", "lid": "k2.lid.keK316jg65NYOw6BbBHJHeQ7YWpyuHfNRxBVtY3kNoXG",
			"public": "k2.public.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8", "pid": "k2.pid.4zgEvkSaB64DlcV9ChYZPEqBATLwUsB5zCrlpEOk2wD9",
			"secret":     "k2.secret.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8c5WpIyC_5kWKhS8VEYSZ05dYfuTF-ZdQFV4D9vLTcNQ",
			"sid":        "k2.sid.9wfgiRJhydmagHQ9kKOOxQm3OXRTCPxkelCzxw1sJRkV",
			"localWrap":  "k2.local-wrap.pie.UNK6-S4s4uZ2oc7Ntujea9FdRDWgmWmkFJrZPQtVb_Z4GF2iWN7UVPXyKGYfF1WkqVk7a4iWuxAx8KwpoNZEPHK1Ym6PtROKDeMpBPo-G0I9cDyh_r764LGy3NqRb6_0",
			"secretWrap": "k2.secret-wrap.pie.MMdHghvp1yDr2nqeFmrrlsiZC9O4MMfobSKML62CTzofArLMxqRNUA7ONGlUea5IwMFc6G7Nka2PqrBDaXW1yREpuyFcmfgdTmTIwWGHb-SgrgHe5RDg221beOvbo2hxTzjBnXay_hfPsJPA97PPWdYH_9vAa06piaEux94TUoc",
			"seal":       "k2.seal.rJZgCJrVrUFRPehByeSoO1wAUxG072_yZcyHKARrNU_ShbDBbW6xKtQl7se_PZZ9z1z484vcWmp0iTWGcVplCj2oZClme5JBCQeYSqc2lDev3xTFgOiRxX71gnnxSBkO",
		},
		4: {
			"local": "k4.local.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8", "lid": "k4.lid.iVtYQDjr5gEijCSjJC3fQaJm7nCeQSeaty0Jixy8dbsk",
			"public": "k4.public.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8", "pid": "k4.pid.9ShR3xc8-qVJ_di0tc9nx0IDIqbatdeM2mqLFBJsKRHs",
			"secret":     "k4.secret.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8c5WpIyC_5kWKhS8VEYSZ05dYfuTF-ZdQFV4D9vLTcNQ",
			"sid":        "k4.sid.gHYyx8y5YzqKEZeYoMDqUOKejdSnY_AWhYZiSCMjR1V5",
			"localWrap":  "k4.local-wrap.pie.cy-Mu6zSfhu6q0_XdAM9p1zre_joUWjreSjHgisVNh-oHaNarN4_c7xuSyaHwqEDxF7lTbfNplBGU7wTeUyt__hZyj1J38NdNxVwuXamJY2QhRE-kWYA9_16xTsGwCQX",
			"secretWrap": "k4.secret-wrap.pie.dYA31PP6a-d1Cyk3xt2Dz8kpGSlbpwkG5UyrLcgRspSvq1RUO1UQicQNE3-eXYUYGhXrG9zAVnR93tize-IPtiFEyO70U3bWEXd0uU7asDJQ19I3V2mf5OPIcKQl-TnY0XXtw5DPqY1yEFEbA9WTiDG0I3z6KTWA2z09NWm0OHQ",
			"seal":       "k4.seal.3-VOL4pX5b7eV3uMhYHfOhJNN77YyYtd7wYXrH9rRucKNmq0aO-6AWIFU4xOXUCBk0mzBZeWAPAKrvejqixqeRXm-MQXt8yFGHmM1RzpdJw80nabbyDIsNCpBwltU-uj",
		},
	} {
		local, public := paseto.V4Local, paseto.V4Public
		if version == 2 {
			local, public = paseto.V2Local, paseto.V2Public
		}
		k, err := symmetric(local, known.key)
		require.NoError(t, err)
		pk, err := publicKey(public, known.key)
		require.NoError(t, err)
		sk, err := secretKey(public, known.seed)
		require.NoError(t, err)
		ones, err := symmetric(local, known.ones)
		require.NoError(t, err)
		mine, err := secretKey(public, known.sealing)
		require.NoError(t, err)

		require.Equal(t, []string{texts["local"], texts["lid"], texts["public"], texts["pid"], texts["secret"], texts["sid"]},
			[]string{k.PASERK(), k.ID(), pk.PASERK(), pk.ID(), sk.PASERK(), sk.ID()})
		again, err := paseto.ParseSymmetricKey(local, texts["local"])
		require.NoError(t, err)
		require.Equal(t, k, again)
		againSecret, err := paseto.ParseSecretKey(public, texts["secret"])
		require.NoError(t, err)
		require.Equal(t, sk, againSecret)
		againPublic, err := paseto.ParsePublicKey(public, texts["public"])
		require.NoError(t, err)
		require.Equal(t, pk, againPublic)

		unwrapped, err := paseto.UnwrapSymmetricKey(local, texts["localWrap"], k)
		require.NoError(t, err)
		require.Equal(t, ones, unwrapped)
		unwrappedSecret, err := paseto.UnwrapSecretKey(public, texts["secretWrap"], ones)
		require.NoError(t, err)
		require.Equal(t, sk, unwrappedSecret)
		unsealed, err := mine.Unseal(local, texts["seal"])
		require.NoError(t, err)
		require.Equal(t, ones, unsealed)

		wrapped, err := sk.Wrap(k)
		require.NoError(t, err)
		back, err := paseto.UnwrapSecretKey(public, wrapped, k)
		require.NoError(t, err)
		require.Equal(t, sk, back)
		other, err := sk.Wrap(k)
		require.NoError(t, err)
		require.NotEqual(t, wrapped, other, "each time another nonce")
		wrapped, err = ones.Wrap(k)
		require.NoError(t, err)
		backSymmetric, err := paseto.UnwrapSymmetricKey(local, wrapped, k)
		require.NoError(t, err)
		require.Equal(t, ones, backSymmetric)
		sealed, err := ones.SealTo(mine.Public())
		require.NoError(t, err)
		backSymmetric, err = mine.Unseal(local, sealed)
		require.NoError(t, err)
		require.Equal(t, ones, backSymmetric)

		// Every byte of what is wrapped or sealed is vouched for.
		for typ, open := range map[string]func(string) error{
			"localWrap":  func(s string) error { _, err := paseto.UnwrapSymmetricKey(local, s, k); return err },
			"secretWrap": func(s string) error { _, err := paseto.UnwrapSecretKey(public, s, ones); return err },
			"seal":       func(s string) error { _, err := mine.Unseal(local, s); return err },
		} {
			text := texts[typ]
			body := strings.LastIndexByte(text, '.') + 1
			b, err := base64.RawURLEncoding.DecodeString(text[body:])
			require.NoError(t, err)
			for i := range b {
				b[i] ^= 0x40
				require.ErrorIs(t, open(text[:body]+base64.RawURLEncoding.EncodeToString(b)), paseto.ErrSeal, "%s, byte %d", typ, i)
				b[i] ^= 0x40
			}
			for n := range b {
				err := open(text[:body] + base64.RawURLEncoding.EncodeToString(b[:n]))
				want := paseto.ErrPASERK
				if typ != "seal" && n >= 64 {
					want = paseto.ErrSeal // long enough for a tag and a nonce
				}
				require.ErrorIs(t, err, want, "%s, %d bytes", typ, n)
			}
			require.Error(t, open(text[:body]+base64.RawURLEncoding.EncodeToString(append(b, 0))))
		}
	}
}

func TestAnIDHas33BytesAndAType(t *testing.T) {
	id := "k4.lid.iVtYQDjr5gEijCSjJC3fQaJm7nCeQSeaty0Jixy8dbsk"
	for text, want := range map[string]bool{
		id: true, strings.Replace(id, "lid", "pid", 1): true,
		strings.Replace(id, "lid", "sid", 1): false, strings.Replace(id, "k4", "k2", 1): false,
		id[:len(id)-2]: false, id + "AA": false, id[:len(id)-1] + ".": false, "": false, "k4.lid.": false,
	} {
		got, err := paseto.ParseID(paseto.V4Local, text, "lid", "pid")
		if !want {
			require.ErrorIs(t, err, paseto.ErrPASERK, text)
			require.Empty(t, got)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
	_, err := paseto.ParseSymmetricKey(0, "k4.local."+strings.Repeat("A", 43))
	require.ErrorIs(t, err, paseto.ErrPASERK, "of no protocol")
	mine := pairs(t)[paseto.V4Public].sealer.(paseto.SecretKey)
	for _, other := range []string{"", id, "k4.local." + strings.Repeat("A", 43), "k2.seal." + strings.Repeat("A", 128), "k4.seal.A"} {
		_, err := mine.Unseal(paseto.V4Local, other)
		require.ErrorIs(t, err, paseto.ErrPASERK, "%q is not sealed", other)
	}
	_, err = paseto.ParseID(paseto.V4Local, id)
	require.ErrorIs(t, err, paseto.ErrPASERK, "of no type at all")
	_, err = paseto.ParseID(0, id, "lid")
	require.ErrorIs(t, err, paseto.ErrPASERK, "of no protocol")
}

// What is too long is no PASERK; what is not too long and of the wrong size is one
// of no key.
func TestTheLongestPASERK(t *testing.T) {
	for n, want := range map[int]error{508: paseto.ErrKey, 512: paseto.ErrKey, 514: paseto.ErrPASERK, 516: paseto.ErrPASERK, 513: paseto.ErrPASERK} {
		_, err := paseto.ParseSymmetricKey(paseto.V4Local, "k4.local."+strings.Repeat("A", n))
		require.ErrorIs(t, err, want, "%d characters", n)
	}
	for _, bad := range []string{"", "k4.local", "k4.local.=", "k4.local.AB", "k4.secret." + strings.Repeat("A", 43)} {
		_, err := paseto.ParseSymmetricKey(paseto.V4Local, bad)
		require.ErrorIs(t, err, paseto.ErrPASERK, bad)
		_, err = paseto.ParseSecretKey(paseto.V4Public, strings.Replace(bad, "secret", "local", 1))
		require.ErrorIs(t, err, paseto.ErrPASERK, bad)
		_, err = paseto.ParsePublicKey(paseto.V4Public, bad)
		require.ErrorIs(t, err, paseto.ErrPASERK, bad)
	}
}

// A key wraps, seals to, unwraps and unseals keys of its own version only.
func TestKeysOfTwoVersionsDoNotMeet(t *testing.T) {
	all := pairs(t)
	sym := func(version int) paseto.SymmetricKey {
		return all[map[int]paseto.Protocol{2: paseto.V2Local, 4: paseto.V4Local}[version]].sealer.(paseto.SymmetricKey)
	}
	sec := func(version int) paseto.SecretKey {
		return all[map[int]paseto.Protocol{2: paseto.V2Public, 4: paseto.V4Public}[version]].sealer.(paseto.SecretKey)
	}
	for _, a := range []int{2, 4} {
		for _, b := range []int{2, 4} {
			wrapped, err := sym(a).Wrap(sym(b))
			wrappedSecret, err2 := sec(a).Wrap(sym(b))
			sealed, err3 := sym(a).SealTo(sec(b).Public())
			if a != b {
				require.ErrorIs(t, err, paseto.ErrKey)
				require.ErrorIs(t, err2, paseto.ErrKey)
				require.ErrorIs(t, err3, paseto.ErrKey)
				require.Empty(t, wrapped+wrappedSecret+sealed)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, err2)
			require.NoError(t, err3)
			other := 6 - a
			_, err = paseto.UnwrapSymmetricKey(sym(a).Protocol(), wrapped, sym(other))
			require.ErrorContains(t, err, "another version")
			_, err = paseto.UnwrapSecretKey(sec(a).Protocol(), wrappedSecret, sym(other))
			require.ErrorContains(t, err, "another version")
			_, err = sec(other).Unseal(sym(a).Protocol(), sealed)
			require.ErrorIs(t, err, paseto.ErrKey)
			_, err = paseto.UnwrapSymmetricKey(sym(other).Protocol(), wrapped, sym(other))
			require.ErrorIs(t, err, paseto.ErrPASERK)
			_, err = paseto.UnwrapSymmetricKey(sec(a).Protocol(), wrapped, sym(a))
			require.ErrorIs(t, err, paseto.ErrKey, "a symmetric key is for a local protocol")
			_, err = paseto.UnwrapSecretKey(sym(a).Protocol(), wrappedSecret, sym(a))
			require.ErrorIs(t, err, paseto.ErrKey)
		}
		_, err := sec(a).Unseal(0, "")
		require.ErrorIs(t, err, paseto.ErrKey)
		_, err = sym(a).Wrap(paseto.SymmetricKey{})
		require.ErrorIs(t, err, paseto.ErrKey)
		_, err = sym(a).SealTo(paseto.PublicKey{})
		require.ErrorIs(t, err, paseto.ErrKey)
	}
	_, err := paseto.SymmetricKey{}.SealTo(sec(4).Public())
	require.ErrorIs(t, err, paseto.ErrKey)
	_, err = paseto.SymmetricKey{}.Wrap(sym(4))
	require.ErrorIs(t, err, paseto.ErrKey, "the zero key is of no version, and everybody has it")
	_, err = paseto.SecretKey{}.Wrap(sym(4))
	require.ErrorIs(t, err, paseto.ErrKey)
}

// To a key under which anybody could open it, nothing is sealed.
func TestNothingIsSealedToAWeakKey(t *testing.T) {
	k := pairs(t)[paseto.V4Local].sealer.(paseto.SymmetricKey)
	for _, weak := range []string{"00", "01", "02"} {
		pk, err := publicKey(paseto.V4Public, weak+strings.Repeat("00", 31))
		require.NoError(t, err)
		_, err = k.SealTo(pk)
		require.ErrorIs(t, err, paseto.ErrKey)
	}
}

// A sender who knows the public key alone could seal under a point of low order, for
// which everybody knows the shared secret.
func TestAPointOfLowOrderUnsealsNothing(t *testing.T) {
	mine := pairs(t)[paseto.V4Public].sealer.(paseto.SecretKey)
	for _, low := range []string{strings.Repeat("00", 32), "01" + strings.Repeat("00", 31)} {
		b, err := hex.DecodeString(strings.Repeat("00", 32) + low + strings.Repeat("00", 32))
		require.NoError(t, err)
		_, err = mine.Unseal(paseto.V4Local, "k4.seal."+base64.RawURLEncoding.EncodeToString(b))
		require.ErrorIs(t, err, paseto.ErrSeal)
	}
}

// Version 2 has no implicit assertion, so none is taken for one that was checked.
func TestVersion2RefusesAnImplicitAssertion(t *testing.T) {
	for _, p := range []paseto.Protocol{paseto.V2Local, paseto.V2Public} {
		keys := pairs(t)[p]
		text, err := keys.sealer.Seal("payload", "footer", "")
		require.NoError(t, err)
		_, err = open(keys.opener, text, "assertion")
		require.ErrorIs(t, err, paseto.ErrKey)
		sealed, err := keys.sealer.Seal("payload", "footer", "assertion")
		require.ErrorIs(t, err, paseto.ErrKey)
		require.Empty(t, sealed)
	}
}

func TestKeysKnowTheirProtocolAndDifferEachTime(t *testing.T) {
	first, second := pairs(t), pairs(t)
	for p, keys := range first {
		require.Equal(t, p, keys.sealer.Protocol())
		require.Equal(t, p, keys.opener.Protocol())
		require.NotEqual(t, keys.opener.ID(), second[p].opener.ID())
		one, err := keys.sealer.Seal("payload", "", "")
		require.NoError(t, err)
		two, err := keys.sealer.Seal("payload", "", "")
		require.NoError(t, err)
		require.Equal(t, !p.Local(), one == two, "only what is encrypted has a nonce")
		_, err = keys.opener.Open(paseto.Token{}, "")
		require.ErrorIs(t, err, paseto.ErrFormat, "the zero Token is of no protocol")
		require.NotContains(t, fmt.Sprintf("%v %+v", keys.sealer, keys.sealer), base64.RawURLEncoding.EncodeToString(paseto.Bytes(keys.sealer)))
	}
	for _, p := range []paseto.Protocol{paseto.V4Local, paseto.V2Local} {
		_, err := paseto.NewSecretKey(p)
		require.ErrorIs(t, err, paseto.ErrKey)
	}
	for _, p := range []paseto.Protocol{paseto.V4Public, paseto.V2Public, 0} {
		_, err := paseto.NewSymmetricKey(p)
		require.ErrorIs(t, err, paseto.ErrKey)
	}
	_, err := paseto.NewSecretKey(0)
	require.ErrorIs(t, err, paseto.ErrKey)
}
