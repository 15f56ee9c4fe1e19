//go:build unix

package fob_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/httpauth"
	"github.com/fobkit/fob/internal/claims"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// readable is how much of a text from outside anybody may look at before the length
// has decided: as much as the longest thing that is accepted anywhere.
const readable = 16 << 10

// tail is the end that can be read of a text that is forbidden in its middle: a reader
// that looks at the last few bytes does not get slower with the length.
const tail = 4 << 10

// walled is a text of size bytes that begins with start, goes on with fill, and of
// which only the first readable bytes and the last tail exist: whoever reads on gets a
// fault, which is a panic here. So what no reader may do, whose work must not grow
// with what a stranger sends, is a failure and no question of time.
func walled(t testing.TB, size int, start string, fill byte) string {
	t.Helper()
	page := unix.Getpagesize()
	size = (size + page - 1) / page * page
	room, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(room)) })
	front, back := max(readable, page), max(tail, page)
	for _, part := range [][]byte{room[:front], room[size-back:]} {
		for i := range part {
			part[i] = fill
		}
	}
	copy(room, start)
	require.NoError(t, unix.Mprotect(room[front:size-back], unix.PROT_NONE))
	return unsafe.String(&room[0], size)
}

// Work does not grow with what is sent: a length that nothing good has is seen before
// anything else is looked at.
func TestLengthIsLookedAtFirst(t *testing.T) {
	m := newManager(t, nil, fob.Config{
		Prefix: "acme_live", RetiredPrefixes: []string{"old"}, OtherPrefixes: []string{"acme_test"}, Tokens: &fob.TokenConfig{Protocol: fob.V4Public, Issuer: "acme"},
		Imported: &fob.ImportedKeys{MaxLength: 4096, Digest: func(p string) []byte { return []byte(p) }, Locate: func(p string) (string, bool) { return p[:4], true }},
	})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), Refreshable: true})
	require.NoError(t, err)
	keys := m.Fresh()
	public, err := fob.NewTokenVerifier(m, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"acme"}})
	require.NoError(t, err)
	bare := newManager(t, nil, fob.Config{})
	key, err := paseto.NewSymmetricKey(paseto.V4Local)
	require.NoError(t, err)
	guard, err := httpauth.Require(fob.Chain(m, keys, public, bare), httpauth.Options{AnyCredential: true})
	require.NoError(t, err)
	page := guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") }))

	// Each reader says whether it has accepted the text.
	verify := func(v fob.Verifier) func(string) bool {
		return func(s string) bool { _, err := v.Verify(context.Background(), s); return err == nil }
	}
	header := func(name, before string) func(string) bool {
		return func(s string) bool {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header[name] = []string{before + s}
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			return w.Code == 200 || w.Code == 503
		}
	}
	readers := map[string]func(string) bool{
		"Manager":       verify(m),
		"Fresh":         verify(keys),
		"native only":   verify(bare),
		"TokenVerifier": verify(public),
		"Chain":         verify(fob.Chain(m, public)),
		"Refresh":       func(s string) bool { _, err := m.Refresh(context.Background(), s); return err == nil },
		"Authorization": header("Authorization", ""),
		"key header":    header("X-Api-Key", ""),
		"ParseID":       func(s string) bool { _, err := fob.ParseID(s); return err == nil },
		"ParseScopes":   func(s string) bool { _, err := fob.ParseScopes(s); return err == nil },
		"ID text": func(s string) bool {
			return new(fob.ID).UnmarshalText(unsafe.Slice(unsafe.StringData(s), len(s))) == nil
		},
		"List": func(s string) bool {
			_, err := m.List(context.Background(), fob.Query{Cursor: fob.Cursor(s)})
			return err == nil
		},
		"Cursor":         func(s string) bool { _, _, err := backend.Cursor(s).Place(backend.Query{}); return err == nil },
		"public key":     func(s string) bool { _, err := fob.ParsePublicTokenKey(s); return err == nil },
		"keytext.Split":  func(s string) bool { _, p := keytext.Split(s); return p == keytext.OK },
		"keytext.ID":     func(s string) bool { _, ok := keytext.ParseID(s); return ok },
		"keytext.Prefix": func(s string) bool { return keytext.CheckPrefix(s) == nil },
		"paseto":         func(s string) bool { _, err := paseto.Parse(s); return err == nil },
		"PASERK":         func(s string) bool { _, err := paseto.ParseSymmetricKey(paseto.V4Local, s); return err == nil },
		"PASERK ID":      func(s string) bool { _, err := paseto.ParseID(paseto.V4Local, s, "lid"); return err == nil },
		"PASERK wrap":    func(s string) bool { _, err := paseto.UnwrapSymmetricKey(paseto.V4Local, s, key); return err == nil },
		"claims": func(s string) bool {
			_, err := claims.Decode(unsafe.Slice(unsafe.StringData(s), len(s)))
			return err == nil
		},
		"importedhash": func(s string) bool { _, err := importedhash.Parse(s); return err == nil },
	}
	starts := []string{
		"", text, text[:20], "acme_live_1", "acme_test_1", "fob_1", "fobrefresh_1", issued.Access.Reveal(), issued.Refresh.Reveal(), "v4.local.", "v4.public.AAAA", "v9.local.",
		"Bearer ", "Bearer " + text, "Bearer", "bearer  ", "Basic", "Basic ", "Negotiate ", `{"iss":"a","x":"`, `{"keys":[`, "k4.local.", "k4.lid.", "k4.public.", "k4.local-wrap.pie.",
		"$2a$04$", "$argon2id$v=19$m=", "$sha512$", "$pbkdf2-sha256$", strings.Repeat("0", 64),
	}
	var texts []string
	for _, start := range starts {
		for _, fill := range []byte{'a', '_', ' ', '\t', '=', '.', '"', '[', 0xe9} {
			texts = append(texts, walled(t, 1<<20, start, fill))
		}
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	for name, read := range readers {
		for _, s := range texts {
			require.NotPanics(t, func() { require.False(t, read(s)) }, "%s of %q…", name, s[:80])
		}
	}
}
