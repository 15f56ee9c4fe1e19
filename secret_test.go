package fob_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

func TestASecretNeverPrints(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})
	require.NoError(t, err)
	text := secret.Reveal()
	part := text[len(text)-38 : len(text)-6] // the secret characters

	type exported struct{ Secret fob.Secret }
	type hidden struct {
		secret  fob.Secret
		pointer *fob.Secret
		key     *fob.Key
	}
	values := []any{
		secret, &secret, exported{secret}, &exported{secret}, hidden{secret, &secret, key}, &hidden{secret, &secret, key},
		[]fob.Secret{secret}, map[string]fob.Secret{"k": secret}, key, *key,
	}
	var out bytes.Buffer
	logs := slog.New(slog.NewJSONHandler(&out, nil))
	text2 := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		js, err := json.Marshal(v)
		require.NoError(t, err)
		out.Write(js)
		logs.Info("x", "v", v)
		text2.Info("x", "v", v)
		fmt.Fprintln(&out, errors.Join(fmt.Errorf("wrapped: %v", v)))
	}
	require.NotContains(t, out.String(), part)
	require.NotContains(t, strings.ToLower(out.String()), fmt.Sprintf("%x", part))
	require.Contains(t, out.String(), "[redacted]")
	require.Equal(t, "[redacted]", secret.String())
	require.Empty(t, fob.Secret{}.Reveal())
}

// shown are the ways in which a program may hold what it prints.
func shown[T any](v T) []any {
	return []any{v, &v, struct{ V T }{v}, struct{ V *T }{&v}, []T{v}, map[string]T{"k": v}}
}

// hidden are these, and unexported fields, where fmt calls no methods: what has plain
// exported fields cannot redact itself there.
func hidden[T any](v T) []any { return append(shown(v), struct{ v T }{v}, struct{ v *T }{&v}) }

// spellings are how a secret shows in what is printed.
func spellings(secret string) []string {
	b := []byte(secret)
	list := func(format, sep string) string {
		var parts []string
		for _, c := range b {
			parts = append(parts, fmt.Sprintf(format, c))
		}
		return strings.Join(parts, sep)
	}
	return []string{secret, fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), list("%d", " "), list("%#x", ", "), list("0x%02x", ", "),
		base64.StdEncoding.EncodeToString(b)}
}

// Every exported type that holds a secret redacts it, however it is printed. (That
// leaves %w and %p of something that is neither error nor pointer: go vet finds them.)
func TestNothingPrintsItsSecrets(t *testing.T) {
	const (
		word     = "SECRETWORDSECRETWORDSECRETWORDSE" // 32 bytes
		oldHash  = "$2a$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
		tokenKey = "TOKENKEYSEALTOKENKEYSEALTOKENKEY"
	)
	pepper := fob.Pepper{ID: "p1", Key: []byte(word)}
	tokens := fob.TokenConfig{Issuer: "i", SealKey: []byte(tokenKey)}
	cfg := fob.Config{Prefix: "acme_live", Peppers: []fob.Pepper{pepper}, Tokens: &tokens, SweepInterval: -1, Imported: located()}
	m := newManager(t, nil, cfg)
	secret, key, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")})
	require.NoError(t, err)
	old, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")}, fob.ImportedKey{Hash: oldHash, Locator: "ab12cd"})
	require.NoError(t, err)
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("app-42"), Refreshable: true})
	require.NoError(t, err)
	keys, err := m.TokenKeys(t.Context())
	require.NoError(t, err)
	plain := newManager(t, nil, fob.Config{})
	plainText, plainKey := mustIssue(t, plain, fob.KeySpec{})
	block := keytext.Block(plainText)
	digest := sha256.Sum256(block[:])
	// fmt reads what is in them without a lock.
	require.NoError(t, m.Close())
	require.NoError(t, plain.Close())

	for name, c := range map[string]struct {
		values  []any
		secrets []string
	}{
		"Secret":      {hidden(secret), []string{secret.Reveal()}},
		"Issued":      {hidden(issued), []string{issued.Access.Reveal(), issued.Refresh.Reveal()}},
		"Pepper":      {shown(pepper), []string{word}},
		"swapped":     {shown(fob.Pepper{ID: word + "=", Key: []byte("p1")}), []string{word}},
		"TokenConfig": {shown(tokens), []string{tokenKey}},
		"TokenKey":    {hidden(keys[0]), []string{tokenKey}},
		"Config":      {shown(cfg), []string{word, tokenKey}},
		"ImportedKey": {shown(fob.ImportedKey{Secret: word, Digest: []byte(tokenKey)}), []string{word, tokenKey}},
		"KeySpec":     {shown(fob.KeySpec{Subject: fob.App("app-42"), IdempotencyKey: word}), []string{word}},
		"Key":         {shown(*plainKey), []string{string(digest[:])}},
		"imported":    {shown(*old), []string{oldHash}},
		"Token":       {shown(*issued.Token), []string{issued.Access.Reveal()}},
		"Manager":     {hidden(m), []string{word, tokenKey, string(digest[:])}},
		"plain":       {hidden(plain), []string{string(digest[:])}},
		"Credential":  {shown(fob.Credential(plainKey)), []string{string(digest[:])}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range c.values {
				var out bytes.Buffer
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
					fmt.Fprintf(&out, verb+"\n", v)
				}
				js, _ := json.Marshal(v) // a func in a Config makes it fail, which is fine
				out.Write(js)
				slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
				slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
				for _, s := range c.secrets {
					for _, spelled := range spellings(s) {
						require.NotContains(t, out.String(), spelled, "%T", v)
					}
				}
			}
		})
	}
	require.Equal(t, key.String(), fmt.Sprint(*key))
	require.Equal(t, `manager of "acme_live"`, fmt.Sprintf("%+v", m))
	require.Equal(t, "<nil> <nil>", fmt.Sprint((*fob.Manager)(nil), (*fob.Key)(nil)))
	js, err := json.Marshal(fob.KeySpec{Subject: fob.App("app-42"), IdempotencyKey: word})
	require.NoError(t, err)
	require.Contains(t, string(js), `"Subject":{"kind":"application","name":"app-42"}`)
	require.Contains(t, string(js), `"IdempotencyKey":"[redacted]"`)
}

// A secret that got into the wrong field does not come back in the error.
func TestNoErrorQuotesWhatItRefuses(t *testing.T) {
	m := newManager(t, nil, fob.Config{Tokens: &fob.TokenConfig{}})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	text = "Bearer " + text + "\x00" // refused in every field
	issue := func(spec fob.KeySpec) error {
		spec.Subject = fob.App("a")
		_, _, err := m.IssueKey(t.Context(), spec)
		return err
	}
	token := func(spec fob.TokenSpec) error {
		spec.Subject = fob.User("a")
		_, err := m.IssueToken(t.Context(), spec)
		return err
	}
	configured := func(cfg fob.Config) error { _, err := fob.New(memory.New(), cfg); return err }
	pepper := make([]byte, 32)
	_, scopes := fob.ParseScopes("ok " + text)
	_, long := fob.ParseScopes(strings.Repeat(text[:60]+" ", 1<<10))
	for name, err := range map[string]error{
		"scope":       issue(fob.KeySpec{Scopes: fob.Scopes{fob.Scope(text)}}),
		"prefix":      issue(fob.KeySpec{Prefix: text}),
		"scopes":      scopes,
		"long scopes": long,
		"audience":    token(fob.TokenSpec{Audience: text}),
		"grant type":  token(fob.TokenSpec{Grants: fob.Grants{{Type: text, Actions: []string{"a"}, Identifiers: []string{"1"}}}}),
		"grant":       token(fob.TokenSpec{Grants: fob.Grants{{Type: "t", Actions: []string{text}, Identifiers: []string{"1"}}}}),
		"pepper ID":   configured(fob.Config{Peppers: []fob.Pepper{{ID: text, Key: pepper}}}),
		"short":       configured(fob.Config{Peppers: []fob.Pepper{{ID: text}}}),
		"prefixes":    configured(fob.Config{Prefix: text, Prefixes: []string{text}, RetiredPrefixes: []string{text}, OtherPrefixes: []string{text}}),
		"issuer":      configured(fob.Config{Tokens: &fob.TokenConfig{Issuer: text, Audiences: []string{text}}}),
	} {
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		require.NotContains(t, err.Error(), text[20:40], name)
		require.Less(t, len(err.Error()), 1000, name)
	}
}

func TestNoErrorOrEventTellsASecret(t *testing.T) {
	seen := &observed{}
	store := memory.New()
	m := newManager(t, store, fob.Config{Observer: seen, Imported: &fob.ImportedKeys{}})
	text, key := mustIssue(t, m, fob.KeySpec{IdempotencyKey: requestID})
	var said strings.Builder
	for i := range text { // everything close to the real one
		_, err := m.Verify(t.Context(), text[:i]+"x"+text[i+1:])
		fmt.Fprintln(&said, err)
		_, err = m.Verify(t.Context(), text[:i])
		fmt.Fprintln(&said, err)
	}
	_, _, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App(text + "\n"), Name: text})
	fmt.Fprintln(&said, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
	fmt.Fprintln(&said, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: text})
	fmt.Fprintln(&said, err)
	fmt.Fprintf(&said, "%v %+v %#v\n", fob.ImportedKey{Secret: text}, fob.ImportedKey{Secret: text}, fob.ImportedKey{Secret: text})
	fmt.Fprintf(&said, "%v %+v\n", fob.Pepper{ID: "p", Key: []byte(text)}, []fob.Pepper{{ID: "p", Key: []byte(text)}})
	_, err = fob.New(store, fob.Config{Peppers: []fob.Pepper{{ID: "p", Key: []byte(text[30:50])}}})
	fmt.Fprintln(&said, err)
	_, err = m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	_, err = m.Verify(t.Context(), text)
	fmt.Fprintln(&said, err)
	for _, e := range seen.events {
		fmt.Fprintf(&said, "%+v\n", e)
	}
	require.NotContains(t, said.String(), text[30:50])
	require.NotContains(t, said.String(), requestID)
}

func TestIDText(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	_, key := mustIssue(t, m, fob.KeySpec{})
	id, err := fob.ParseID(key.ID().String())
	require.NoError(t, err)
	require.Equal(t, key.ID(), id)
	js, err := json.Marshal(map[string]fob.ID{"id": id})
	require.NoError(t, err)
	var back map[string]fob.ID
	require.NoError(t, json.Unmarshal(js, &back))
	require.Equal(t, id, back["id"])
	require.Empty(t, fob.ID{}.String())
	for _, bad := range []string{"", "short", strings.Repeat("x", 17), "0123456789abcde-"} {
		_, err := fob.ParseID(bad)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
	require.ErrorIs(t, new(fob.ID).UnmarshalText([]byte("bad")), fob.ErrInvalid)
}

func TestScopesText(t *testing.T) {
	s, err := fob.ParseScopes("orders:read orders:write orders:read")
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"orders:read", "orders:write"}, s)
	require.Equal(t, "orders:read orders:write", s.String())
	s, err = fob.ParseScopes("")
	require.NoError(t, err)
	require.Empty(t, s)
	require.False(t, s.Allow(""))
	for _, bad := range []string{" ", "a  b", " a", "a ", "a\tb", `a"b`, `a\b`, "é"} {
		_, err := fob.ParseScopes(bad)
		require.ErrorIs(t, err, fob.ErrInvalid, "%q", bad)
	}
}

func FuzzParseScopes(f *testing.F) {
	f.Add("orders:read orders:write")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := fob.ParseScopes(text)
		if err != nil {
			return
		}
		again, err := fob.ParseScopes(s.String())
		require.NoError(t, err)
		require.Equal(t, s.String(), again.String())
		for _, scope := range s {
			require.True(t, s.Allow(scope))
		}
	})
}

func FuzzVerify(f *testing.F) {
	store := memory.New()
	m, err := fob.New(store, fob.Config{Prefix: "acme_live", Imported: &fob.ImportedKeys{}, SweepInterval: -1})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close() })
	secret, _, err := m.IssueKey(f.Context(), fob.KeySpec{Subject: fob.App("a")})
	require.NoError(f, err)
	f.Add("acme_live_10ZqKJ3vT9xWm4cRbabcdefghijklmnopqrstuvwxyz0123451Hls8h")
	f.Add("")
	f.Add("sk_foreign_0123456789")
	f.Fuzz(func(t *testing.T, text string) {
		cred, err := m.Verify(t.Context(), text)
		if text == secret.Reveal() {
			return
		}
		require.ErrorIs(t, err, fob.ErrRejected)
		require.Nil(t, cred)
	})
}

func TestConfigNamesEveryProblem(t *testing.T) {
	_, err := fob.New(nil, fob.Config{})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = fob.New(memory.New(), fob.Config{
		Prefix:          "Acme",
		RetiredPrefixes: []string{"x", "x"},
		Peppers:         []fob.Pepper{{ID: "a b", Key: make([]byte, 31)}},
		Imported:        &fob.ImportedKeys{MaxLength: 5000, SlowChecks: -1},
		CacheEntries:    -1,
		MaxStaleness:    time.Millisecond,
		UsageInterval:   time.Nanosecond,
		SweepInterval:   time.Nanosecond,
		Retention:       -1,
	})
	require.ErrorIs(t, err, fob.ErrInvalid)
	for _, part := range []string{"Prefix, number 0", `"x" is named twice`, "Peppers[0]: its ID", "31 bytes", "MaxLength", "SlowChecks", "CacheEntries", "MaxStaleness", "UsageInterval", "SweepInterval", "Retention"} {
		require.ErrorContains(t, err, part)
	}
}

func TestTheCallersConfigIsCopied(t *testing.T) {
	pepper := []byte("0123456789abcdef0123456789abcdef")
	cfg := fob.Config{Prefix: "acme_live", RetiredPrefixes: []string{"old"}, Peppers: []fob.Pepper{{ID: "p", Key: pepper}}, SweepInterval: -1}
	store := memory.New()
	m, err := fob.New(store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	text, _ := mustIssue(t, m, fob.KeySpec{})
	clear(pepper)
	cfg.RetiredPrefixes[0] = "evil"
	mustVerify(t, m, text)
	fresh, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, fresh)
}

func TestEventsAreLogged(t *testing.T) {
	var out bytes.Buffer
	m := newManager(t, nil, fob.Config{Observer: fob.LogEvents(slog.New(slog.NewTextHandler(&out, nil)))})
	_, key := mustIssue(t, m, fob.KeySpec{})
	_, err := m.Revoke(t.Context(), key.ID(), "leaked")
	require.NoError(t, err)
	require.Contains(t, out.String(), `msg="fob: issued" id=`+key.ID().String()+" subject.kind=application subject.name=app-42")
	require.Contains(t, out.String(), `msg="fob: revoked"`)
	require.Contains(t, out.String(), "reason=leaked")
	_, err = m.Revoke(t.Context(), fob.User("7"), "")
	require.NoError(t, err)
	require.Contains(t, out.String(), `msg="fob: revoked" subject.kind=user subject.name=7 target="user 7" epoch=`)
}

func TestChain(t *testing.T) {
	a, b := newManager(t, nil, fob.Config{}), newManager(t, nil, fob.Config{Prefix: "other"})
	fromA, keyA := mustIssue(t, a, fob.KeySpec{})
	fromB, _ := mustIssue(t, b, fob.KeySpec{})
	chain := fob.Chain(a, b)
	for _, text := range []string{fromA, fromB} {
		_, err := chain.Verify(t.Context(), text)
		require.NoError(t, err)
	}
	_, err := chain.Verify(t.Context(), "nonsense")
	require.ErrorIs(t, err, fob.ErrMalformed)
	_, err = a.Revoke(t.Context(), keyA.ID(), "")
	require.NoError(t, err)
	_, err = chain.Verify(t.Context(), fromA)
	require.ErrorIs(t, err, fob.ErrRevoked)
	require.NoError(t, a.Close())
	_, err = chain.Verify(t.Context(), fromB)
	mustBeUnsure(t, err)
	_, err = fob.Chain().Verify(t.Context(), fromB)
	require.ErrorIs(t, err, fob.ErrRejected)
}
