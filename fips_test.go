package fob_test

import (
	"context"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// TestUnderFIPSOnly runs itself in a process whose cryptography refuses what FIPS
// 140-3 does not approve. What such a process cannot check it must not call bad, and
// what it can never do it refuses when it is asked to begin.
//
// fips140.WithoutEnforcement stands for another process, without that mode, on the
// same store.
func TestUnderFIPSOnly(t *testing.T) {
	if !fips140.Enforced() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnderFIPSOnly$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestUnderFIPSOnly/")
		return
	}
	t.Run("imported hashes", fipsHashes)
	t.Run("an import that could never be checked", fipsImport)
	t.Run("tokens", fipsTokens)
	t.Run("v2.local is refused at the start", fipsNew)
	t.Run("v2.local of another process", fipsV2Local)
	t.Run("what is sealed for a repetition", fipsAnswers)
}

func elsewhere(t *testing.T, do func()) {
	t.Helper()
	fips140.WithoutEnforcement(do)
}

// foreignHash is a hash of secret, and whether FIPS mode can check it.
type foreignHash struct {
	name, text string
	allowed    bool
}

func foreignHashes(t *testing.T, secret string) (all []foreignHash) {
	raw := base64.RawStdEncoding.EncodeToString
	short, long := []byte("short salt"), []byte("a salt of 26 bytes in full")
	kdf := func(salt []byte, size int) []byte {
		key, err := pbkdf2.Key(sha256.New, secret, salt, 10, size)
		require.NoError(t, err)
		return key
	}
	elsewhere(t, func() {
		all = append(all,
			foreignHash{"pbkdf2, short salt", "$pbkdf2-sha256$i=10$" + raw(short) + "$" + raw(kdf(short, 32)), false},
			foreignHash{"pbkdf2 of Django, short salt", "pbkdf2_sha256$10$" + string(short) + "$" + base64.StdEncoding.EncodeToString(kdf(short, 32)), false},
			foreignHash{"pbkdf2, long salt", "$pbkdf2-sha256$i=10$" + raw(long) + "$" + raw(kdf(long, 32)), true},
		)
	})
	fast, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	require.NoError(t, err)
	return append(all,
		foreignHash{"bcrypt", string(fast), true},
		foreignHash{"argon2id", "$argon2id$v=19$m=64,t=1,p=1$" + raw(short) + "$" + raw(argon2.IDKey([]byte(secret), short, 1, 64, 1, 32)), true},
		foreignHash{"sha256", fmt.Sprintf("%x", sha256.Sum256([]byte(secret))), true},
	)
}

func fipsConfig() fob.Config {
	return fob.Config{Imported: &fob.ImportedKeys{Locate: func(s string) (string, bool) {
		locator, _, ok := strings.Cut(s, ".")
		return locator, ok
	}}}
}

func fipsHashes(t *testing.T) {
	ctx := context.Background()
	for i, h := range foreignHashes(t, "ab12.fips-secret") {
		store := memory.New()
		m := newManager(t, store, fipsConfig())
		var key *fob.Key
		var err error
		elsewhere(t, func() {
			key, err = m.ImportKey(ctx, fob.KeySpec{Subject: fob.App(fmt.Sprint("app-", i))}, fob.ImportedKey{Hash: h.text, Locator: "ab12"})
		})
		require.NoError(t, err, h.name)
		for _, presented := range []string{"ab12.fips-secret", "ab12.wrong-secret"} {
			cred, err := m.Verify(ctx, presented)
			switch {
			case !h.allowed:
				require.Nil(t, cred, h.name)
				require.Error(t, err, h.name)
				mustBeUnsure(t, err)
				_, err = m.Fresh().Verify(ctx, presented)
				mustBeUnsure(t, err)
			case presented == "ab12.fips-secret":
				require.NoError(t, err, h.name)
				require.Equal(t, key.ID(), cred.ID(), h.name)
			default:
				require.ErrorIs(t, err, fob.ErrUnknown, h.name)
			}
		}
		// The refusal was not remembered as an answer, and where the check can be made it is.
		elsewhere(t, func() { require.Equal(t, key.ID(), mustVerify(t, m, "ab12.fips-secret").ID(), h.name) })
		require.NoError(t, m.Close())
		require.NoError(t, store.Close())
	}
}

func fipsImport(t *testing.T) {
	ctx := context.Background()
	for i, h := range foreignHashes(t, "ab12.fips-secret") {
		m := newManager(t, nil, fipsConfig())
		spec := fob.KeySpec{Subject: fob.App(fmt.Sprint("app-", i))}
		_, err := m.ImportKey(ctx, spec, fob.ImportedKey{Hash: h.text, Locator: "ab12"})
		if h.allowed {
			require.NoError(t, err, h.name)
			continue
		}
		require.ErrorIs(t, err, fob.ErrInvalid, h.name)
		require.ErrorContains(t, err, "FIPS 140-only", h.name)
		require.NotContains(t, err.Error(), h.text, h.name)
		// Nothing was begun.
		elsewhere(t, func() {
			_, err = m.ImportKey(ctx, spec, fob.ImportedKey{Hash: h.text, Locator: "ab12"})
		})
		require.NoError(t, err, h.name)
	}
}

func fipsTokens(t *testing.T) {
	ctx := context.Background()
	for _, p := range []fob.Protocol{fob.V4Local, fob.V4Public, fob.V2Public} {
		m := newManager(t, nil, fob.Config{Tokens: &fob.TokenConfig{Protocol: p, SealKey: sealKeyOf(7)}})
		issued, err := m.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("app-1")})
		require.NoError(t, err, p)
		require.Equal(t, issued.Token.ID(), mustVerify(t, m, issued.Access.Reveal()).ID(), p)
		mustReject(t, m, issued.Access.Reveal()+"AA", fob.ErrRejected)
	}
}

func sealKeyOf(n byte) []byte { return slices.Repeat([]byte{n}, 32) }

func fipsNew(t *testing.T) {
	store := memory.New()
	defer func() { require.NoError(t, store.Close()) }()
	for _, key := range [][]byte{nil, sealKeyOf(7)} {
		_, err := fob.New(store, fob.Config{Prefix: "acme_live", Tokens: &fob.TokenConfig{Protocol: fob.V2Local, SealKey: key}})
		require.ErrorIs(t, err, fob.ErrInvalid)
		require.ErrorContains(t, err, "v2.local")
		require.ErrorContains(t, err, "FIPS 140-only")
	}
}

// A fleet that changes over to FIPS mode: the ring still has a key of v2.local.
func fipsV2Local(t *testing.T) {
	ctx := context.Background()
	store := memory.New()
	defer func() { require.NoError(t, store.Close()) }()
	config := func(p fob.Protocol) fob.Config {
		return fob.Config{Tokens: &fob.TokenConfig{Protocol: p, SealKey: sealKeyOf(7), RefreshGrace: time.Hour}}
	}
	var old *fob.Manager
	var issued fob.Issued
	elsewhere(t, func() {
		old = newManager(t, store, config(fob.V2Local))
		var err error
		issued, err = old.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("app-1"), Refreshable: true})
		require.NoError(t, err)
	})
	m := newManager(t, store, config(fob.V4Local))
	for range 2 { // the second would come from memory
		_, err := m.Verify(ctx, issued.Access.Reveal())
		mustBeUnsure(t, err)
		require.ErrorContains(t, err, "FIPS 140-only")
		_, err = m.Fresh().Verify(ctx, issued.Access.Reveal())
		mustBeUnsure(t, err)
		// Nor is a forgery known to be one.
		_, err = m.Verify(ctx, forgedSeal(issued.Access.Reveal()))
		mustBeUnsure(t, err)
		// The active key is the old one: no new token, and the refresh secret is not used up.
		_, err = m.Refresh(ctx, issued.Refresh.Reveal())
		mustBeUnsure(t, err)
		_, err = m.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("app-1")})
		mustBeUnsure(t, err)
	}
	var next fob.Issued
	elsewhere(t, func() {
		mustVerify(t, m, issued.Access.Reveal())
		mustReject(t, m, forgedSeal(issued.Access.Reveal()), fob.ErrTokenSeal)
		var err error
		next, err = old.Refresh(ctx, issued.Refresh.Reveal())
		require.NoError(t, err)
	})
	// The answer to the client that lost it is a token that cannot be read here.
	_, err := m.Refresh(ctx, issued.Refresh.Reveal())
	mustBeUnsure(t, err)
	require.NotErrorIs(t, err, fob.ErrCorrupt)
	elsewhere(t, func() {
		again, err := m.Refresh(ctx, issued.Refresh.Reveal())
		require.NoError(t, err, "the family goes on")
		require.Equal(t, next.Refresh.Reveal(), again.Refresh.Reveal())
	})
}

// forgedSeal changes a character of what is sealed, not of the footer.
func forgedSeal(token string) string {
	b := []byte(token)
	at := len("v2.local.") + 10
	if b[at]++; b[at] > 'Z' || b[at] < 'A' {
		b[at] = 'A'
	}
	if string(b) == token {
		b[at] = 'B'
	}
	return string(b)
}

func fipsAnswers(t *testing.T) {
	ctx := context.Background()
	for _, peppers := range [][]fob.Pepper{nil, {{ID: "p1", Key: slices.Repeat([]byte{3}, 32)}}} {
		m := newManager(t, nil, fob.Config{Peppers: peppers, Tokens: &fob.TokenConfig{SealKey: sealKeyOf(7)}})
		spec := fob.KeySpec{Subject: fob.App("app-1"), IdempotencyKey: "sixteen bytes ok"}
		first, _, err := m.IssueKey(ctx, spec)
		require.NoError(t, err)
		second, _, err := m.IssueKey(ctx, spec)
		require.NoError(t, err)
		require.Equal(t, first.Reveal(), second.Reveal())
		mustVerify(t, m, first.Reveal())

		issued, err := m.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("app-1"), Refreshable: true})
		require.NoError(t, err)
		one, err := m.Refresh(ctx, issued.Refresh.Reveal())
		require.NoError(t, err)
		two, err := m.Refresh(ctx, issued.Refresh.Reveal())
		require.NoError(t, err)
		require.Equal(t, one.Refresh.Reveal(), two.Refresh.Reveal())
	}
}
