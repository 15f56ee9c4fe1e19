package fob_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// listSource is a source that a test writes the list of.
type listSource func(ctx context.Context) ([]fob.TokenKey, error)

func (f listSource) TokenKeys(ctx context.Context) ([]fob.TokenKey, error) { return f(ctx) }

func over(t *testing.T, source fob.TokenKeySource) *fob.TokenVerifier {
	t.Helper()
	v, err := fob.NewTokenVerifier(source, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, MaxTTL: 24 * time.Hour})
	require.NoError(t, err)
	return v
}

// issuerOf makes an issuer with a key of its own, and returns that and a token under it.
func issuerOf(t *testing.T, p fob.Protocol) (fob.TokenKey, string) {
	t.Helper()
	m := after(t, memory.New(), tokenConfig(protocol(p), func(c *fob.TokenConfig) { c.MaxTTL = 24 * time.Hour }))
	t.Cleanup(func() { _ = m.Close() })
	text := mustToken(t, m, fob.TokenSpec{TTL: 24 * time.Hour}).Access.Reveal()
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 1)
	return keys[0], text
}

// A list is taken whole or not at all: a key that cannot be read may be the one that is
// looked for, so that its token could not be checked, and was not refused.
func TestAListOfTokenKeysIsTakenWholeOrNotAtAll(t *testing.T) {
	good, text := issuerOf(t, fob.V4Public)
	secret, _ := issuerOf(t, fob.V4Local)
	require.Empty(t, secret.Public)
	weak := fob.TokenKey{Public: "k4.public." + base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...))}
	rejected := errors.Join(errors.New("the other service said no"), fob.ErrRevoked)
	for name, is := range map[string]struct {
		keys []fob.TokenKey
		err  error
		want string // of the error; "": the token is good
	}{
		"one":                         {keys: []fob.TokenKey{good}},
		"beside one that is secret":   {keys: []fob.TokenKey{secret, good}},
		"as many as there may be":     {keys: slices.Repeat([]fob.TokenKey{good}, 32)},
		"one too many":                {keys: slices.Repeat([]fob.TokenKey{good}, 33), want: "33 token keys"},
		"beside a weak one":           {keys: []fob.TokenKey{good, weak}, want: "weak"},
		"beside one that is no key":   {keys: []fob.TokenKey{{Public: "k4.public.AAAA"}, good}, want: "no public key"},
		"none":                        {want: "no public key"},
		"none that is public":         {keys: []fob.TokenKey{secret}, want: "no public key"},
		"a failure":                   {err: errors.New("down"), want: "down"},
		"somebody else's rejection":   {err: rejected, want: "the other service said no"},
		"of another, so not this one": {keys: []fob.TokenKey{must(issuerOf(t, fob.V4Public))}, want: "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			v := over(t, listSource(func(context.Context) ([]fob.TokenKey, error) { return is.keys, is.err }))
			cred, err := v.Verify(t.Context(), text)
			switch is.want {
			case "":
				require.NoError(t, err)
				require.Equal(t, "user-7", cred.Subject().Name)
			case "unknown":
				require.ErrorIs(t, err, fob.ErrTokenKey)
			default:
				mustBeUnsure(t, err)
				require.ErrorContains(t, err, is.want)
			}
		})
	}
	_, err := fob.PublicTokenKeys{good.Public, "k4.public.AAAA"}.TokenKeys(t.Context())
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = fob.ParsePublicTokenKey(weak.Public)
	require.ErrorIs(t, err, fob.ErrInvalid)
	keys, err := fob.PublicTokenKeys{good.Public}.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Equal(t, good.ID, keys[0].ID)
}

func must(k fob.TokenKey, _ string) fob.TokenKey { return k }

func TestAVerifierThatCannotWorkIsNotMade(t *testing.T) {
	good := fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}}
	for name, change := range map[string]func(*fob.TokenVerifierConfig){
		"no issuer":          func(c *fob.TokenVerifierConfig) { c.Issuer = "" },
		"no audience":        func(c *fob.TokenVerifierConfig) { c.Audiences = nil },
		"MaxTTL":             func(c *fob.TokenVerifierConfig) { c.MaxTTL = -1 },
		"Leeway":             func(c *fob.TokenVerifierConfig) { c.Leeway = time.Hour },
		"a cache of nothing": func(c *fob.TokenVerifierConfig) { c.CacheEntries = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			v, err := fob.NewTokenVerifier(fob.PublicTokenKeys{}, cfg)
			require.ErrorIs(t, err, fob.ErrInvalid)
			require.Nil(t, v)
		})
	}
	_, err := fob.NewTokenVerifier(nil, good)
	require.ErrorIs(t, err, fob.ErrInvalid)
}

// A token that names a secret key is none for whoever has public ones only, and the length
// is looked at first.
func TestWhatAVerifierWithPublicKeysRefusesUnasked(t *testing.T) {
	key, text := issuerOf(t, fob.V4Public)
	_, sealed := issuerOf(t, fob.V4Local)
	asked := 0
	v := over(t, listSource(func(context.Context) ([]fob.TokenKey, error) { asked++; return []fob.TokenKey{key}, nil }))
	for text, want := range map[string]error{
		sealed: fob.ErrTokenProtocol,
		"v4.public." + strings.Repeat("A", 8<<10-len("v4.public.")):   fob.ErrTokenKey, // it may be so long, and names no key
		"v4.public." + strings.Repeat("A", 8<<10-len("v4.public.")+1): fob.ErrTokenLength,
		"v4.public.!!!!": fob.ErrTokenFormat,
		"":               fob.ErrTokenFormat,
		"v4":             fob.ErrTokenFormat,
	} {
		_, err := v.Verify(t.Context(), text)
		require.ErrorIs(t, err, want, "%.20s", text)
	}
	require.Zero(t, asked)
	first, err := v.Verify(t.Context(), text)
	require.NoError(t, err)
	again, err := v.Verify(t.Context(), text)
	require.NoError(t, err)
	require.Same(t, first, again, "the second answer comes from the cache")
	require.Equal(t, 1, asked)
}

// Keys are asked for when they are 15 s old. What is cached goes on if they are the same,
// and is looked at anew if one has gone, is another one, or has got an end.
func TestWhatIsCachedGoesOnAsLongAsTheKeysAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := issuerOf(t, fob.V4Public)
		other, _ := issuerOf(t, fob.V4Public)
		list, asked := []fob.TokenKey{key}, 0
		v := over(t, listSource(func(context.Context) ([]fob.TokenKey, error) { asked++; return list, nil }))
		verify := func() (fob.Credential, error) { return v.Verify(t.Context(), text) }
		first, err := verify()
		require.NoError(t, err)
		time.Sleep(15*time.Second - time.Nanosecond)
		_, err = verify()
		require.NoError(t, err)
		require.Equal(t, 1, asked, "they are not yet 15 s old")
		time.Sleep(time.Nanosecond)
		again, err := verify()
		require.NoError(t, err)
		require.Equal(t, 2, asked)
		require.Same(t, first, again)

		list[0].RetireAt = time.Now().Add(time.Minute)
		time.Sleep(15 * time.Second)
		again, err = verify()
		require.NoError(t, err)
		require.NotSame(t, first, again, "the key has got an end")
		time.Sleep(45*time.Second - time.Millisecond)
		_, err = verify()
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		_, err = verify()
		require.ErrorIs(t, err, fob.ErrRejected, "its key's end has come")

		list[0] = key
		time.Sleep(15 * time.Second)
		_, err = verify()
		require.NoError(t, err)
		list[0] = other
		time.Sleep(15 * time.Second)
		_, err = verify()
		require.ErrorIs(t, err, fob.ErrTokenKey, "another key stands in its place")
	})
}

// Who waits for a fetch that another one has begun takes what that brought.
func TestTwoWhoNeedAKeyFetchItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := issuerOf(t, fob.V4Public)
		asked := 0
		v := over(t, listSource(func(context.Context) ([]fob.TokenKey, error) {
			asked++
			time.Sleep(time.Second)
			return []fob.TokenKey{key}, nil
		}))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := v.Verify(t.Context(), text); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, asked)
	})
}

// Of a source that hangs, one caller at a time waits: 250 ms, doubled with each failure up
// to 8 s; and it is left alone for 1 s, doubled up to a minute. When it answers again, all
// that is forgotten. Without keys that are younger than an hour nothing is accepted.
func TestASourceThatHangsIsWaitedForLongerAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, text := issuerOf(t, fob.V4Public)
		hangs := false
		v := over(t, listSource(func(ctx context.Context) ([]fob.TokenKey, error) {
			if hangs {
				return nil, hang(ctx)
			}
			return []fob.TokenKey{key}, nil
		}))
		// next sleeps until somebody waits for the source, and returns for how long.
		next := func() (pause, waited time.Duration) {
			t.Helper()
			for range 10_000 {
				began := time.Now()
				_, err := v.Verify(t.Context(), text)
				require.NoError(t, err)
				if waited = time.Since(began); waited > 0 {
					return pause, waited
				}
				time.Sleep(250 * time.Millisecond)
				pause += 250 * time.Millisecond
			}
			t.Fatal("nobody waits")
			return 0, 0
		}
		for range 2 {
			_, err := v.Verify(t.Context(), text)
			require.NoError(t, err)
			hangs = true
			time.Sleep(15 * time.Second)
			wait, pause := 250*time.Millisecond, time.Duration(0)
			for n := range 9 {
				left, waited := next()
				require.Equal(t, pause, left, n)
				require.Equal(t, wait, waited, n)
				wait, pause = min(2*wait, 8*time.Second), min(max(2*pause, time.Second), time.Minute)
			}
			hangs = false
			time.Sleep(time.Minute)
		}
		_, err := v.Verify(t.Context(), text)
		require.NoError(t, err)
		hangs = true
		time.Sleep(time.Hour - time.Nanosecond)
		_, err = v.Verify(t.Context(), text)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = v.Verify(t.Context(), text)
		mustBeUnsure(t, err)
		require.ErrorContains(t, err, "in time")
	})
}

// Who hangs up while it waits is told so.
func TestWhoHangsUpOnAFetchIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, text := issuerOf(t, fob.V4Public)
		v := over(t, listSource(func(context.Context) ([]fob.TokenKey, error) {
			time.Sleep(time.Second)
			return nil, errors.New("down")
		}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err := v.Verify(ctx, text)
		require.ErrorIs(t, err, context.Canceled)
		mustBeUnsure(t, err)
		_, err = v.Verify(t.Context(), text)
		require.ErrorContains(t, err, "down", "the next one is told what is wrong with the source")
		mustBeUnsure(t, err)
	})
}
