package fob_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// tellers are the calls by which somebody is told that a key was revoked.
var tellers = map[string]func(t *testing.T, m *fob.Manager, text string, key *fob.Key){
	"fresh": func(t *testing.T, m *fob.Manager, text string, _ *fob.Key) {
		_, err := m.Fresh().Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrRevoked)
	},
	"get": func(t *testing.T, m *fob.Manager, _ string, key *fob.Key) {
		cred, err := m.Get(t.Context(), key.ID())
		require.NoError(t, err)
		require.Equal(t, fob.StatusRevoked, cred.StatusAt(time.Now()))
	},
	"list": func(t *testing.T, m *fob.Manager, _ string, key *fob.Key) {
		page, err := m.List(t.Context(), fob.Query{Subject: key.Subject()})
		require.NoError(t, err)
		for _, cred := range page.Items {
			require.True(t, cred.ID() != key.ID() || cred.StatusAt(time.Now()) == fob.StatusRevoked)
		}
	},
	"update": func(t *testing.T, m *fob.Manager, _ string, key *fob.Key) {
		name := "another"
		_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Name: &name})
		require.ErrorIs(t, err, fob.ErrRevoked)
	},
	"enable": func(t *testing.T, m *fob.Manager, _ string, key *fob.Key) {
		require.ErrorIs(t, m.Enable(t.Context(), key.ID()), fob.ErrRevoked)
	},
	"rotate": func(t *testing.T, m *fob.Manager, _ string, key *fob.Key) {
		_, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{})
		require.ErrorIs(t, err, fob.ErrRevoked)
	},
}

// Revoke has been applied and not acknowledged. Somebody is told of it; a load that
// began earlier ends after that; and nobody who comes then is told what it read.
func TestALoadThatBeganEarlierDoesNotBringTheOldStateBack(t *testing.T) {
	for name, tell := range tellers {
		for _, by := range []string{"key", "subject"} {
			if name == "list" && by == "subject" {
				continue // it believes what is remembered of the subject, so it tells no news
			}
			for _, follows := range []bool{true, false} {
				t.Run(name+"/"+by+map[bool]string{true: "/feed", false: "/no feed"}[follows], func(t *testing.T) {
					bubbleOver(t, func(t *testing.T, _ backend.Store, fault *backendtest.Fault) {
						var store backend.Store = fault
						if !follows {
							store = listing{fault}
						}
						m := newManager(t, store, fob.Config{MaxStaleness: 2 * time.Second, Tokens: tokenConfig().Tokens})
						defer m.Close()
						text, key := mustIssue(t, m, fob.KeySpec{})
						sibling, _ := mustIssue(t, m, fob.KeySpec{})
						issued, err := m.ExchangeKey(t.Context(), sibling, fob.TokenSpec{Audience: "api"})
						require.NoError(t, err)
						pass(3 * time.Second)
						mustVerify(t, m, sibling)
						mustVerify(t, m, issued.Access.Reveal())
						// The next read of the key is read now, and answered in a second; of what is
						// written nothing is acknowledged for a minute.
						late := false
						fault.Inject(func(c backendtest.Call) backendtest.Injection {
							switch {
							case c.Op == backendtest.OpPut:
								return backendtest.Injection{After: func() { time.Sleep(time.Minute) }}
							case c.Op == backendtest.OpGet && c.ID == idOf(key) && !late:
								late = true
								return backendtest.Injection{After: func() { time.Sleep(time.Second) }}
							}
							return backendtest.Injection{}
						})
						var wg sync.WaitGroup
						wg.Go(func() { _, _ = m.Verify(t.Context(), text) }) // either answer is right
						synctest.Wait()
						wg.Go(func() {
							var err error
							if by == "key" {
								_, err = m.Revoke(t.Context(), key.ID(), "")
							} else {
								_, err = m.Revoke(t.Context(), key.Subject(), "")
							}
							require.NoError(t, err)
						})
						synctest.Wait()
						tell(t, m, text, key)
						mustReject(t, m, text, fob.ErrRevoked)
						pass(1500 * time.Millisecond) // the load that was late has ended
						mustReject(t, m, text, fob.ErrRevoked)
						if by == "subject" {
							mustReject(t, m, sibling, fob.ErrRevoked)
							mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
						} else {
							mustVerify(t, m, sibling)
						}
						wg.Wait()
						mustReject(t, m, text, fob.ErrRevoked)
					})
				})
			}
		}
	}
}

// What was remembered before is forgotten too, and of nothing else: whoever lists a
// thousand keys makes nobody read them again.
func TestAListForgetsWhatItFoundChangedAndNothingElse(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		here := newManager(t, listing{fault}, fob.Config{MaxStaleness: time.Hour})
		defer here.Close()
		there := newManager(t, store, fob.Config{})
		defer there.Close()
		var texts []string
		var keys []*fob.Key
		for range 1000 {
			text, key := mustIssue(t, there, fob.KeySpec{Subject: fob.App("one")})
			texts, keys = append(texts, text), append(keys, key)
		}
		for _, text := range texts {
			mustVerify(t, here, text)
		}
		require.NoError(t, there.Disable(t.Context(), keys[7].ID(), ""))
		mustVerify(t, here, texts[7]) // nobody was told here
		before := gets(fault)
		for range 3 {
			page, err := here.List(t.Context(), fob.Query{Subject: fob.App("one"), Limit: 1000})
			require.NoError(t, err)
			require.Len(t, page.Items, 1000)
		}
		mustReject(t, here, texts[7], fob.ErrDisabled)
		for i, text := range texts {
			if i != 7 {
				mustVerify(t, here, text)
			}
		}
		// What is taken for the key goes with it: hardly ever one of a thousand.
		require.Less(t, gets(fault)-before, 10)
	})
}

// A key that this process has read to be gone, or changed, is not accepted for want of
// a store.
func TestTheLastResortKnowsWhatWasReadHere(t *testing.T) {
	change := map[string]func(t *testing.T, store backend.Store, there *fob.Manager, key *fob.Key){
		"gone": func(t *testing.T, store backend.Store, _ *fob.Manager, key *fob.Key) {
			require.NoError(t, store.Delete(t.Context(), idOf(key), key.Version()))
		},
		"disabled": func(t *testing.T, _ backend.Store, there *fob.Manager, key *fob.Key) {
			require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
		},
		"revoked": func(t *testing.T, _ backend.Store, there *fob.Manager, key *fob.Key) {
			_, err := there.Revoke(t.Context(), key.ID(), "")
			require.NoError(t, err)
		},
		"subject revoked": func(t *testing.T, _ backend.Store, there *fob.Manager, key *fob.Key) {
			_, err := there.Revoke(t.Context(), key.Subject(), "")
			require.NoError(t, err)
		},
	}
	read := map[string]func(t *testing.T, here *fob.Manager, text string, key *fob.Key){
		"verify": func(t *testing.T, here *fob.Manager, text string, _ *fob.Key) {
			_, err := here.Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrRejected)
		},
		"fresh": func(t *testing.T, here *fob.Manager, text string, _ *fob.Key) {
			_, err := here.Fresh().Verify(t.Context(), text)
			require.ErrorIs(t, err, fob.ErrRejected)
		},
		"get": func(t *testing.T, here *fob.Manager, _ string, key *fob.Key) {
			_, _ = here.Get(t.Context(), key.ID())
		},
	}
	for what, change := range change {
		for by, read := range read {
			t.Run(what+"/"+by, func(t *testing.T) {
				bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
					cfg := fob.Config{MaxStaleness: time.Second, StaleIfError: time.Hour, Tokens: tokenConfig().Tokens, Imported: &fob.ImportedKeys{}}
					here := newManager(t, bare{fault}, cfg)
					defer here.Close()
					there := newManager(t, store, fob.Config{})
					defer there.Close()
					text, key := mustIssue(t, here, fob.KeySpec{Subject: fob.App("one")})
					issued, err := here.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api"})
					require.NoError(t, err)
					imported, err := here.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("two")}, fob.ImportedKey{Secret: importedText})
					require.NoError(t, err)
					// The fleet knows of the patience, and what is read from then on is believed.
					pass(5 * time.Second)
					for _, one := range []struct {
						text, other string
						key         *fob.Key
					}{{text, issued.Access.Reveal(), key}, {importedText, importedText, imported}} {
						fault.Inject(nil)
						mustVerify(t, here, one.text)
						mustVerify(t, here, one.other)
						change(t, store, there, one.key)
						pass(2 * time.Second)
						read(t, here, one.text, one.key)
						cut(fault)
						pass(2 * time.Second)
						for _, presented := range []string{one.text, one.other} {
							cred, err := here.Verify(t.Context(), presented)
							require.Error(t, err)
							require.Nil(t, cred)
						}
						pass(2 * time.Second)
					}
				})
			})
		}
	}
}

// A credential that is held tells of an instant before it was revoked, whoever asks for
// it afterwards, and how often.
func TestAsOfOfWhatIsHeldStaysBeforeItsRevocation(t *testing.T) {
	for _, follows := range []bool{true, false} {
		for _, by := range []string{"token", "parent", "subject", "issuer"} {
			t.Run(by+map[bool]string{true: "/feed", false: "/no feed"}[follows], func(t *testing.T) {
				bubbleOver(t, func(t *testing.T, inner backend.Store, fault *backendtest.Fault) {
					var store backend.Store = fault
					if !follows {
						store = bare{fault}
					}
					cfg := fob.Config{MaxStaleness: time.Second, StaleIfError: time.Minute, Tokens: tokenConfig().Tokens}
					here := newManager(t, store, cfg)
					defer here.Close()
					there := newManager(t, inner, cfg)
					defer there.Close()
					text, key := mustIssue(t, here, fob.KeySpec{})
					issued, err := here.ExchangeKey(t.Context(), text, fob.TokenSpec{Audience: "api", TTL: 30 * time.Minute})
					require.NoError(t, err)
					token := issued.Access.Reveal()
					pass(5 * time.Second)
					held, heldKey := mustVerify(t, here, token), mustVerify(t, here, text)
					pass(1700 * time.Millisecond)
					require.Equal(t, held.ID(), mustVerify(t, here, token).ID())
					mustVerify(t, here, text)
					time.Sleep(time.Microsecond) // the revocation is in no whole millisecond
					at := time.Now()
					switch by {
					case "token":
						_, err = there.Revoke(t.Context(), held.ID(), "")
					case "parent":
						_, err = there.Revoke(t.Context(), key.ID(), "")
					case "subject":
						_, err = there.Revoke(t.Context(), key.Subject(), "")
					case "issuer":
						_, err = there.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
					}
					require.NoError(t, err)
					for range 10 {
						pass(1300 * time.Millisecond)
						mustReject(t, here, token, fob.ErrRevoked)
						_, _ = here.Fresh().Verify(t.Context(), token)
						_, _ = here.Verify(t.Context(), text)
					}
					require.False(t, held.AsOf().After(at), "as of %v, revoked at %v", held.AsOf(), at)
					if by == "parent" || by == "subject" {
						require.False(t, heldKey.AsOf().After(at))
					}
				})
			})
		}
	}
}

// Who was told by a refresh that its session was ended elsewhere is not told afterwards
// that its access token is good.
func TestARefusedRefreshEndsTheAccessTokensHere(t *testing.T) {
	for _, follows := range []bool{true, false} {
		bubbleOver(t, func(t *testing.T, inner backend.Store, fault *backendtest.Fault) {
			var store backend.Store = bare{fault}
			if follows { // and is behind
				store = &feedStore{Store: fault, behave: func(ctx context.Context, from backend.Token, inner backend.Watcher, fn func(backend.Batch) error) error {
					return inner.Watch(ctx, from, func(b backend.Batch) error {
						time.Sleep(500 * time.Millisecond)
						return fn(b)
					})
				}}
			}
			cfg := fob.Config{MaxStaleness: time.Minute, Tokens: tokenConfig().Tokens}
			here, there := newManager(t, store, cfg), newManager(t, inner, cfg)
			defer here.Close()
			defer there.Close()
			issued := mustToken(t, here, fob.TokenSpec{Refreshable: true})
			pass(5 * time.Second)
			mustVerify(t, here, issued.Access.Reveal())
			_, err := there.Revoke(t.Context(), issued.Token.Session(), "")
			require.NoError(t, err)
			_, err = here.Refresh(t.Context(), issued.Refresh.Reveal())
			require.ErrorIs(t, err, fob.ErrRevoked)
			mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
		})
	}
}

// mustTellDisabled is a call by which somebody is told that a key is disabled.
func mustTellDisabled(t *testing.T, m *fob.Manager, id fob.ID) {
	t.Helper()
	told, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, fob.StatusDisabled, told.StatusAt(time.Now()))
}

// A text with a locator that eight keys share reads more records than any other.
func TestAKeyThatSharesItsLocatorIsNotOldAfterNew(t *testing.T) {
	for nth := range 8 {
		inner := memory.New()
		defer inner.Close()
		fault := backendtest.NewFault(inner)
		m := newManager(t, bare{fault}, fob.Config{Imported: located()})
		text := func(n int) string { return fmt.Sprintf("ab12cd.secret-number-%d", n) }
		var key *fob.Key
		for n := range nth + 1 {
			var err error
			key, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App(fmt.Sprint("s", n))}, fob.ImportedKey{Secret: text(n), Locator: "ab12cd"})
			require.NoError(t, err)
		}
		for range 3 {
			mustVerify(t, m, text(nth))
		}
		// The change is applied, and its acknowledgement on its way.
		fault.InjectOnce(backendtest.OpPut, backendtest.Injection{After: func() {
			mustTellDisabled(t, m, key.ID())
			mustReject(t, m, text(nth), fob.ErrDisabled)
		}})
		require.NoError(t, m.Disable(t.Context(), key.ID(), ""), nth)
	}
}

// What was told of the record of a key, or of its subject, ends every answer that was made
// from it, however the key is found, and where only a part of the answer found a place in
// memory.
func TestWhatIsToldOfAKeyEndsEveryAnswerMadeFromIt(t *testing.T) {
	forms := map[string]*fob.ImportedKey{
		"made here":                nil,
		"imported":                 {Secret: importedText},
		"imported under a locator": {Secret: importedText, Locator: "ab12cd"},
	}
	for name, form := range forms {
		for _, follows := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, with a feed: %v", name, follows), func(t *testing.T) {
				bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
					var feed resettable
					cfg := fob.Config{MaxStaleness: time.Minute, Imported: &fob.ImportedKeys{Locate: located().Locate}}
					over := feed.over(fault)
					if !follows {
						over = bare{fault}
					}
					here, there := newManager(t, over, cfg), newManager(t, store, cfg)
					defer here.Close()
					defer there.Close()
					spec := fob.KeySpec{Subject: fob.App("app-42")}
					var text string
					var key *fob.Key
					if form == nil {
						text, key = mustIssue(t, there, spec)
					} else {
						var err error
						text = form.Secret
						key, err = there.ImportKey(t.Context(), spec, *form)
						require.NoError(t, err)
					}
					pass(5 * time.Second)
					feed.lost.Store(true)
					mustVerify(t, here, text)
					before := gets(fault)
					mustVerify(t, here, text)
					require.Equal(t, before, gets(fault), "it is in memory")
					require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
					mustVerify(t, here, text) // nobody was told here
					mustTellDisabled(t, here, key.ID())
					mustReject(t, here, text, fob.ErrDisabled)
				})
			})
		}
	}
}

func TestWhatIsToldOfASubjectEndsWhatIsRememberedOfIt(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		cfg := tokenConfig()
		cfg.MaxStaleness, cfg.CacheEntries, cfg.CacheBytes = time.Minute, 100, 3000
		here, there := newManager(t, bare{fault}, cfg), newManager(t, store, cfg)
		defer here.Close()
		defer there.Close()
		var large fob.Scopes // so that the key finds no place in memory, and its subject does
		for n := range 60 {
			large = append(large, fob.Scope(fmt.Sprintf("%s:%d", strings.Repeat("x", 60), n)))
		}
		one, _ := mustIssue(t, there, fob.KeySpec{Subject: fob.App("app-7"), Scopes: large})
		token := mustToken(t, there, fob.TokenSpec{Subject: fob.App("app-7")}).Access.Reveal()
		mustVerify(t, here, one)
		before := gets(fault)
		mustVerify(t, here, one)
		require.Equal(t, before+1, gets(fault), "the key, and not its subject")
		_, err := there.Revoke(t.Context(), fob.App("app-7"), "")
		require.NoError(t, err)
		mustVerify(t, here, one) // nobody was told here
		_, err = here.Fresh().Verify(t.Context(), token)
		require.ErrorIs(t, err, fob.ErrRevoked)
		mustReject(t, here, one, fob.ErrRevoked)
	})
}

// No record has the version of one that is not there, not even the first that a store
// ever writes.
func TestTheFirstVersionIsAnotherOneThanNone(t *testing.T) {
	elsewhere, store := memory.New(), memory.New()
	defer elsewhere.Close()
	defer store.Close()
	text, key := mustIssue(t, newManager(t, bare{elsewhere}, fob.Config{}), fob.KeySpec{})
	m := newManager(t, bare{store}, fob.Config{Clock: newClock().Now}) // no time passes
	for range 3 {                                                      // it is remembered that there is none
		mustReject(t, m, text, fob.ErrUnknown)
	}
	require.NotZero(t, m.CacheStats().NegativeHits)
	rec, err := elsewhere.Get(t.Context(), idOf(key))
	require.NoError(t, err)
	version, err := store.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	require.EqualValues(t, 1, version)
	_, err = m.Get(t.Context(), key.ID())
	require.NoError(t, err)
	mustVerify(t, m, text)
}
