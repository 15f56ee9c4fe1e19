package fob_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// undertaking is one call of a Manager. What its prepare has made stays as it is; do is
// tried with one call of the store failing after the other, over copies of that store.
type undertaking struct {
	cfg fob.Config
	// prepare returns the call, and how a Manager that remembers nothing finds that what
	// it was to do has been done.
	prepare func(t *testing.T, m *fob.Manager) (do func(ctx context.Context, m *fob.Manager) error, done func(t *testing.T, m *fob.Manager))
}

// isRefused is for what ends something: the text is no longer accepted, for this reason.
func isRefused(text string, why error) func(*testing.T, *fob.Manager) {
	return func(t *testing.T, m *fob.Manager) {
		t.Helper()
		mustReject(t, m, text, why)
	}
}

// isVerified is for what makes something: the text is accepted.
func isVerified(text *string) func(*testing.T, *fob.Manager) {
	return func(t *testing.T, m *fob.Manager) {
		t.Helper()
		mustVerify(t, m, *text)
	}
}

func undertakings() map[string]undertaking {
	tokens, foreign := tokenConfig(), fob.Config{Imported: located()}
	peppered := fob.Config{Peppers: []fob.Pepper{{ID: "p", Key: make([]byte, 32)}}, Imported: located()}
	type (
		do   = func(ctx context.Context, m *fob.Manager) error
		done = func(t *testing.T, m *fob.Manager)
	)
	issue := func(spec fob.KeySpec) func(*testing.T, *fob.Manager) (do, done) {
		return func(*testing.T, *fob.Manager) (do, done) {
			var text string
			return func(ctx context.Context, m *fob.Manager) error {
				secret, _, err := m.IssueKey(ctx, spec)
				text = secret.Reveal()
				return err
			}, isVerified(&text)
		}
	}
	onKey := func(f func(ctx context.Context, m *fob.Manager, id fob.ID) error, why error) func(*testing.T, *fob.Manager) (do, done) {
		return func(t *testing.T, m *fob.Manager) (do, done) {
			text, key := mustIssue(t, m, fob.KeySpec{})
			return func(ctx context.Context, m *fob.Manager) error { return f(ctx, m, key.ID()) }, isRefused(text, why)
		}
	}
	rotate := func(rotation fob.Rotation) func(*testing.T, *fob.Manager) (do, done) {
		return func(t *testing.T, m *fob.Manager) (do, done) {
			old, key := mustIssue(t, m, fob.KeySpec{})
			var text string
			return func(ctx context.Context, m *fob.Manager) error {
					secret, _, err := m.RotateKey(ctx, key.ID(), rotation)
					text = secret.Reveal()
					return err
				}, func(t *testing.T, m *fob.Manager) {
					mustVerify(t, m, text)
					if rotation.Overlap == 0 {
						mustReject(t, m, old, fob.ErrRetired)
						return
					}
					require.Equal(t, mustVerify(t, m, text).ID(), mustVerify(t, m, old).(*fob.Key).Successor())
				}
		}
	}
	imports := func(f fob.ImportedKey) func(*testing.T, *fob.Manager) (do, done) {
		return func(*testing.T, *fob.Manager) (do, done) {
			text := importedText
			return func(ctx context.Context, m *fob.Manager) error {
				_, err := m.ImportKey(ctx, fob.KeySpec{Subject: fob.App("app-42")}, f)
				return err
			}, isVerified(&text)
		}
	}
	onToken := func(f func(ctx context.Context, m *fob.Manager, issued fob.Issued) error) func(*testing.T, *fob.Manager) (do, done) {
		return func(t *testing.T, m *fob.Manager) (do, done) {
			issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			return func(ctx context.Context, m *fob.Manager) error { return f(ctx, m, issued) }, isRefused(issued.Access.Reveal(), fob.ErrRevoked)
		}
	}
	verify := func(text func(t *testing.T, m *fob.Manager) string, fresh bool) func(*testing.T, *fob.Manager) (do, done) {
		return func(t *testing.T, m *fob.Manager) (do, done) {
			presented := text(t, m)
			return func(ctx context.Context, m *fob.Manager) error {
				verifier := fob.Verifier(m)
				if fresh {
					verifier = m.Fresh()
				}
				_, err := verifier.Verify(ctx, presented)
				return err
			}, isVerified(&presented)
		}
	}
	derived := func(t *testing.T, m *fob.Manager) string {
		text, _ := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}})
		issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Scopes: fob.Scopes{"a"}, Refreshable: true})
		require.NoError(t, err)
		return issued.Access.Reveal()
	}
	imported := func(t *testing.T, m *fob.Manager) string {
		for _, text := range []string{"ab12cd.another", importedText} {
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("app-42")}, fob.ImportedKey{Secret: text, Locator: "ab12cd"})
			require.NoError(t, err)
		}
		return importedText
	}
	return map[string]undertaking{
		"issue":              {fob.Config{}, issue(fob.KeySpec{Subject: fob.App("a")})},
		"issue, idempotent":  {fob.Config{}, issue(fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID})},
		"issue, peppered":    {peppered, issue(fob.KeySpec{Subject: fob.App("a")})},
		"rotate":             {fob.Config{}, rotate(fob.Rotation{})},
		"rotate, overlap":    {fob.Config{}, rotate(fob.Rotation{Overlap: time.Hour})},
		"rotate, quiet time": {fob.Config{}, rotate(fob.Rotation{Overlap: 100 * time.Hour, QuietTime: time.Hour})},
		"revoke": {fob.Config{}, onKey(func(ctx context.Context, m *fob.Manager, id fob.ID) error {
			_, err := m.Revoke(ctx, id, "leaked")
			return err
		}, fob.ErrRevoked)},
		"revoke the subject": {fob.Config{}, onKey(func(ctx context.Context, m *fob.Manager, _ fob.ID) error {
			_, err := m.Revoke(ctx, fob.App("app-42"), "left")
			return err
		}, fob.ErrRevoked)},
		"disable": {fob.Config{}, onKey(func(ctx context.Context, m *fob.Manager, id fob.ID) error { return m.Disable(ctx, id, "") }, fob.ErrDisabled)},
		"enable": {fob.Config{}, func(t *testing.T, m *fob.Manager) (do, done) {
			text, key := mustIssue(t, m, fob.KeySpec{})
			require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
			return func(ctx context.Context, m *fob.Manager) error { return m.Enable(ctx, key.ID()) }, isVerified(&text)
		}},
		"update": {fob.Config{}, onKey(func(ctx context.Context, m *fob.Manager, id fob.ID) error {
			begins := time.Now().Add(time.Hour)
			_, err := m.UpdateKey(ctx, id, fob.KeyUpdate{NotBefore: &begins})
			return err
		}, fob.ErrNotYetValid)},
		"import a secret":        {foreign, imports(fob.ImportedKey{Secret: importedText})},
		"import with a locator":  {foreign, imports(fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})},
		"import a digest":        {foreign, imports(fob.ImportedKey{Digest: otherDigest(importedText)})},
		"import, peppered":       {peppered, imports(fob.ImportedKey{Digest: otherDigest(importedText), Locator: "ab12cd"})},
		"verify a key":           {fob.Config{}, verify(func(t *testing.T, m *fob.Manager) string { text, _ := mustIssue(t, m, fob.KeySpec{}); return text }, false)},
		"verify an imported key": {peppered, verify(imported, false)},
		"verify a derived token": {tokens, verify(derived, false)},
		"fresh, an imported key": {foreign, verify(imported, true)},
		"fresh, a derived token": {tokens, verify(derived, true)},
		"revoke a token": {tokens, onToken(func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.ID(), "")
			return err
		})},
		"revoke a family": {tokens, onToken(func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Session(), "")
			return err
		})},
		"revoke all tokens": {tokens, onToken(func(ctx context.Context, m *fob.Manager, _ fob.Issued) error {
			_, err := m.Revoke(ctx, fob.AllTokens(time.Time{}), "")
			return err
		})},
		"revoke a user": {tokens, onToken(func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Subject(), "")
			return err
		})},
		"issue a token": {tokens, func(*testing.T, *fob.Manager) (do, done) {
			var text string
			return func(ctx context.Context, m *fob.Manager) error {
				issued, err := m.IssueToken(ctx, fob.TokenSpec{Subject: fob.User("user-7")})
				text = issued.Access.Reveal()
				return err
			}, isVerified(&text)
		}},
		"exchange a key": {tokens, func(t *testing.T, m *fob.Manager) (do, done) {
			key, _ := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}})
			var text string
			return func(ctx context.Context, m *fob.Manager) error {
				issued, err := m.ExchangeKey(ctx, key, fob.TokenSpec{Scopes: fob.Scopes{"a"}, Refreshable: true})
				text = issued.Access.Reveal()
				return err
			}, isVerified(&text)
		}},
		"refresh": {tokens, func(t *testing.T, m *fob.Manager) (do, done) {
			issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			var text string
			return func(ctx context.Context, m *fob.Manager) error {
				next, err := m.Refresh(ctx, issued.Refresh.Reveal())
				text = next.Access.Reveal()
				return err
			}, isVerified(&text)
		}},
	}
}

// spoiled is a store one of whose reads gives a record that is broken.
type spoiled struct {
	backend.Store
	which int // counted down with each read

}

func (s *spoiled) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	if s.which--; s.which == 0 && err == nil {

		rec.Body[len(rec.Body)/2] ^= 1
	}
	return rec, err
}

// Whatever call of the store fails, however often it is said to have: who is told that a
// thing is done finds it done, and who is told otherwise may call again. A store that
// fails is the fault of nobody who presents a credential.
func TestWhatIsToldToBeDoneIsDoneWhicheverCallFails(t *testing.T) {
	for name, u := range undertakings() {
		for how, inject := range map[string]func(n int, store backend.Store) (_ backend.Store, hit func() bool){
			"fails":            endingIn(backendtest.Unavailable(), callsOf("")),
			"loses its answer": endingIn(backendtest.LostAck(), func(c backendtest.Call) bool { return c.Op == backendtest.OpPut || c.Op == backendtest.OpDelete }),
			"reads what is broken": func(n int, store backend.Store) (backend.Store, func() bool) {
				s := &spoiled{Store: store, which: n}
				return s, func() bool { return s.which <= 0 }
			},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				for n := 1; u.withOneFault(t, n, inject); n++ {
					require.Less(t, n, 200)
				}
			})
		}
	}
}

// endingIn makes one call of a store end in this way.
func endingIn(with backendtest.Injection, matches func(backendtest.Call) bool) func(n int, store backend.Store) (backend.Store, func() bool) {
	return func(n int, store backend.Store) (backend.Store, func() bool) {
		fault := backendtest.NewFault(store)
		calls := onNth(fault, n, matches, with)
		return fault, func() bool { return calls() >= n }
	}
}

// withOneFault reports whether there was a call number n.
func (u undertaking) withOneFault(t *testing.T, n int, inject func(int, backend.Store) (backend.Store, func() bool)) bool {
	t.Helper()
	store := memory.New()
	first := bareManager(t, store, u.cfg)
	do, done := u.prepare(t, first)
	require.NoError(t, first.Close())

	faulty, hit := inject(n, store)
	m := bareManager(t, faulty, u.cfg)
	err := do(t.Context(), m)
	struck := hit()
	_ = m.Close()
	clean := bareManager(t, store, u.cfg)
	defer clean.Close()
	if err == nil {
		done(t, clean)
		return struck
	}
	mustBeUnsure(t, err)
	require.True(t, struck, err)
	again := bareManager(t, store, u.cfg)
	defer again.Close()
	if err := do(t.Context(), again); !errors.Is(err, fob.ErrAlready) {
		require.NoError(t, err)
	}
	done(t, clean)
	return true
}
