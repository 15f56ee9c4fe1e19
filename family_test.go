package fob_test

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// TestAnySecretUsedWithinTheGraceGetsTheNewestPair, however many came after it, and none
// does so for longer than its own grace.
func TestAnySecretUsedWithinTheGraceGetsTheNewestPair(t *testing.T) {
	clock := newClock()
	store := memory.New()
	m, other := newManager(t, store, clocked(tokenConfig(), clock)), newManager(t, store, clocked(tokenConfig(), clock))
	issued := []fob.Issued{mustToken(t, m, fob.TokenSpec{Refreshable: true})}
	for range 9 {
		issued = append(issued, mustRefresh(t, m, issued[len(issued)-1].Refresh))
		clock.Add(time.Second)
	}
	newest := issued[len(issued)-1]
	for i, old := range issued[:len(issued)-1] {
		for _, m := range []*fob.Manager{m, other} {
			again := mustRefresh(t, m, old.Refresh)
			require.Equal(t, newest.Refresh.Reveal(), again.Refresh.Reveal(), i)
			require.Equal(t, newest.Access.Reveal(), again.Access.Reveal(), i)
			require.Equal(t, newest.Token, again.Token, i)
			require.Equal(t, newest.RefreshExpiresAt, again.RefreshExpiresAt, i)
		}
	}
	clock.Add(time.Second - time.Millisecond) // the first was used 10 s ago, less a millisecond
	mustRefresh(t, m, issued[0].Refresh)
	newest = mustRefresh(t, m, newest.Refresh)
	require.Equal(t, newest.Refresh.Reveal(), mustRefresh(t, other, issued[0].Refresh).Refresh.Reveal())
	clock.Add(time.Millisecond)
	require.Equal(t, newest.Refresh.Reveal(), mustRefresh(t, other, issued[1].Refresh).Refresh.Reveal())
	mustNotRefresh(t, m, issued[0].Refresh, fob.ErrReplayed)
	for _, i := range issued {
		mustNotRefresh(t, other, i.Refresh, fob.ErrRevoked)
	}
	mustReject(t, m, newest.Access.Reveal(), fob.ErrRevoked)
}

// TestThreeTabsOfOneSession: each has the secret that it saw last, and refreshes when it
// wakes up. No session is lost, and all tabs come to the same secret.
func TestThreeTabsOfOneSession(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 200))
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	for range 200 {
		first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		tabs := []fob.Secret{first.Refresh, first.Refresh, first.Refresh}
		for range 5 { // awakenings of all of them, within the grace
			for range 9 {
				tab := random.IntN(len(tabs))
				tabs[tab] = mustRefresh(t, m, tabs[tab]).Refresh
				clock.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
			}
			for tab := range tabs {
				tabs[tab] = mustRefresh(t, m, tabs[tab]).Refresh
			}
			for tab := range tabs { // those that were answered with the secret that another one used
				if tabs[tab].Reveal() != tabs[2].Reveal() {
					tabs[tab] = mustRefresh(t, m, tabs[tab]).Refresh
				}
			}
			clock.Add(time.Hour)
		}
	}
}

// TestMoreSecretsThanAreAnsweredAgain: of those that were used within the grace the
// latest 32 are; what is older is a replay.
func TestMoreSecretsThanAreAnsweredAgain(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	issued := []fob.Issued{mustToken(t, m, fob.TokenSpec{Refreshable: true})}
	for range 33 {
		issued = append(issued, mustRefresh(t, m, issued[len(issued)-1].Refresh))
	}
	require.Equal(t, issued[33].Refresh.Reveal(), mustRefresh(t, m, issued[1].Refresh).Refresh.Reveal())
	mustNotRefresh(t, m, issued[0].Refresh, fob.ErrReplayed)
	mustNotRefresh(t, m, issued[33].Refresh, fob.ErrRevoked)
}

// TestAReplayIsKnownHoweverManyCameAfterIt, and the record does not grow by that.
func TestAReplayIsKnownHoweverManyCameAfterIt(t *testing.T) {
	for _, grace := range []time.Duration{0, -1} {
		for _, after := range []int{1, 2, 127, 128, 129, 700} {
			clock := newClock()
			store := memory.New()
			m := newManager(t, store, clocked(tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = grace }), clock))
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			now, size := first, 0
			for n := range after + 1 {
				clock.Add(11 * time.Second)
				now = mustRefresh(t, m, now.Refresh)
				body := len(strings.Join(allBodies(t, store), ""))
				if n == 0 {
					size = body
				}
				require.InDelta(t, size, body, 16, "the record of a family does not grow")
			}
			mustNotRefresh(t, m, first.Refresh, fob.ErrReplayed)
			mustNotRefresh(t, m, now.Refresh, fob.ErrRevoked)
			mustReject(t, m, now.Access.Reveal(), fob.ErrRevoked)
		}
	}
}

// TestWhatAFamilyNeverIssuedIsNoReplay: made of its parts, or of another family's.
func TestWhatAFamilyNeverIssuedIsNoReplay(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	other := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, first.Refresh)
	parts := func(s fob.Secret) (secret [keytext.SecretLen]byte) {
		block := keytext.Block(s.Reveal())
		copy(secret[:], block[1+keytext.IDLen:])
		return secret
	}
	made := map[string][keytext.SecretLen]byte{"another family's": parts(other.Refresh)}
	a, b := parts(first.Refresh), parts(second.Refresh)
	for i := 1; i < keytext.SecretLen; i++ {
		mixed := a
		copy(mixed[i:], b[i:])
		if mixed != a && mixed != b { // they may be alike up to i, or from there on
			made["mixed at "+string(rune('A'+i))] = mixed
		}
		changed := a
		if changed[i] = '0'; changed == a {
			changed[i] = 'z'
		}
		made["changed at "+string(rune('A'+i))] = changed
	}
	for name, secret := range made {
		_, err := m.Refresh(t.Context(), keytext.Format("fobrefresh", first.Token.Session(), secret))
		require.ErrorIs(t, err, fob.ErrUnknown, name)
		require.NotErrorIs(t, err, fob.ErrRevoked, name)
	}
	mustRefresh(t, m, second.Refresh)
}

// TestWhoeverReadsTheStoreCanRefreshNothing: with all that it holds of a family, texts
// can be made that are known for replays, and none that is good; and what is sealed in it
// opens only for whoever has a secret that was used.
func TestWhoeverReadsTheStoreCanRefreshNothing(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, tokenConfig())
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	for range 5 {
		next := mustRefresh(t, m, issued.Refresh)
		for _, body := range allBodies(t, store) {
			for _, secret := range []fob.Secret{issued.Refresh, next.Refresh} {
				block := keytext.Block(secret.Reveal())
				random := string(block[1+keytext.IDLen : 1+keytext.IDLen+22])
				require.NotContains(t, body, random)
				require.NotContains(t, body, random[:8])
			}
			require.NotContains(t, body, next.Access.Reveal())
		}
		issued = next
	}
}

// TestNobodyIsToldOfAConflictWhoRefreshes: bursts of callers with the secret that is
// good, each with 30 s left.
func TestNobodyIsToldOfAConflictWhoRefreshes(t *testing.T) {
	onDisk, err := badger.Open(t.TempDir(), badger.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, onDisk.Close()) })
	for name, store := range map[string]backend.Store{"memory": memory.New(), "badger": onDisk} {
		t.Run(name, func(t *testing.T) {
			managers := []*fob.Manager{newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())}
			issued := mustToken(t, managers[0], fob.TokenSpec{Refreshable: true})
			for range 3 {
				issued = refreshAtOnce(t, managers, issued.Refresh, 200)
			}
		})
	}
}

// TestARaceThatIsLostAgainAndAgainIsNoConflict, as long as the caller lasts: here every
// one of a burst loses 40 of them.
func TestARaceThatIsLostAgainAndAgainIsNoConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, losses = 64, 40
		store := backendtest.NewFault(bare{memory.New()})
		managers := []*fob.Manager{newManager(t, bare{store}, tokenConfig()), newManager(t, bare{store}, tokenConfig())}
		issued := mustToken(t, managers[0], fob.TokenSpec{Refreshable: true})
		var lost atomic.Int64
		store.Inject(func(c backendtest.Call) backendtest.Injection {
			if c.Op == backendtest.OpPut && lost.Add(1) <= callers*losses {
				return backendtest.Injection{Fail: backend.ErrConflict}
			}
			return backendtest.Injection{}
		})
		issued = refreshAtOnce(t, managers, issued.Refresh, callers)
		require.Greater(t, lost.Load(), int64(callers*losses))
		mustVerify(t, managers[0], issued.Access.Reveal())

		// Others who change one record at once: a key's, a subject's, the ring's.
		_, key := mustIssue(t, managers[0], fob.KeySpec{})
		for name, change := range map[string]func(ctx context.Context, m *fob.Manager) error{
			"update": func(ctx context.Context, m *fob.Manager) error {
				tags := []string{cryptorand.Text()}
				_, err := m.UpdateKey(ctx, key.ID(), fob.KeyUpdate{Tags: &tags})
				return err
			},
			"revoke a family": func(ctx context.Context, m *fob.Manager) error {
				_, err := m.Revoke(ctx, issued.Token.Session(), "left")
				return err
			},
			"revoke a subject": func(ctx context.Context, m *fob.Manager) error {
				_, err := m.Revoke(ctx, fob.User("somebody"), "left")
				return err
			},
			"rotate the token key": func(ctx context.Context, m *fob.Manager) error {
				_, err := m.RotateTokenKey(ctx)
				return err
			},
		} {
			lost.Store(callers * losses / 2) // each loses 20 before anybody wins
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					defer cancel()
					if err := change(ctx, managers[i%2]); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			wg.Wait()
		}
		for _, m := range managers {
			require.NoError(t, m.Close())
		}
	})
}

// TestARaceIsLostForAsLongAsTheCallerLasts, who has set an end, and else for 10 s.
func TestARaceIsLostForAsLongAsTheCallerLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := backendtest.NewFault(memory.New())
		m := newManager(t, bare{store}, tokenConfig())
		issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		_, key := mustIssue(t, m, fob.KeySpec{})
		for name, change := range map[string]func(context.Context) error{
			"refresh": func(ctx context.Context) error {
				_, err := m.Refresh(ctx, issued.Refresh.Reveal())
				return err
			},
			"revoke": func(ctx context.Context) error {
				_, err := m.Revoke(ctx, key.ID(), "left")
				return err
			},
		} {
			began := time.Now()
			store.Inject(func(c backendtest.Call) backendtest.Injection {
				if c.Op == backendtest.OpPut && time.Since(began) < 20*time.Second {
					return backendtest.Injection{Fail: backend.ErrConflict}
				}
				return backendtest.Injection{}
			})
			require.ErrorIs(t, change(t.Context()), fob.ErrContended, name)
			require.InDelta(t, 10, time.Since(began).Seconds(), 0.1, name)
			began = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			require.NoError(t, change(ctx), name)
			cancel()
			require.InDelta(t, 20, time.Since(began).Seconds(), 0.2, name)
		}
		require.NoError(t, m.Close())
	})
}

// refreshAtOnce refreshes one secret n times at once: nobody is refused, all get the
// same.
func refreshAtOnce(t *testing.T, managers []*fob.Manager, secret fob.Secret, n int) fob.Issued {
	t.Helper()
	var mu sync.Mutex
	var answers []fob.Issued
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			next, err := managers[i%len(managers)].Refresh(ctx, secret.Reveal())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, next)
		})
	}
	wg.Wait()
	require.Len(t, answers, n)
	for _, a := range answers {
		require.Equal(t, answers[0].Refresh.Reveal(), a.Refresh.Reveal(), "one successor")
	}
	return answers[0]
}

// TestWhoHangsUpCannotKeepAFamilyAliveThatWasReplayed: whenever the caller leaves after it
// was seen that the secret is a copy, the family ends, with its access tokens.
func TestWhoHangsUpCannotKeepAFamilyAliveThatWasReplayed(t *testing.T) {
	for step := 1; ; step++ {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, bare{fault}, tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 }))
		first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		second := mustRefresh(t, m, first.Refresh)
		ctx, leave := context.WithCancel(t.Context())
		calls := 0
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			switch c.Op {
			case backendtest.OpGet, backendtest.OpPut:
			default:
				return backendtest.Injection{}
			}
			calls++
			return backendtest.Injection{After: func() {
				if calls == step {
					leave()
				}
			}}
		})
		_, err := m.Refresh(ctx, first.Refresh.Reveal())
		hungUp := ctx.Err() != nil
		leave()
		fault.Inject(nil)
		require.ErrorIs(t, err, fob.ErrReplayed, "call %d", step)
		later := newManager(t, fault, tokenConfig())
		for _, m := range []*fob.Manager{m, later} {
			mustNotRefresh(t, m, second.Refresh, fob.ErrRevoked)
			mustReject(t, m, second.Access.Reveal(), fob.ErrRevoked)
			mustReject(t, m, first.Access.Reveal(), fob.ErrRevoked)
		}
		if !hungUp {
			require.Greater(t, step, 4, "there are calls to hang up after")
			return
		}
	}
}

// TestCloseWaitsForTheEndOfAFamilyThatWasReplayed, which a store that hangs holds up,
// and no longer than that is bounded.
func TestCloseWaitsForTheEndOfAFamilyThatWasReplayed(t *testing.T) {
	for _, hangs := range []time.Duration{5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			fault := backendtest.NewFault(store)
			cfg := tokenConfig(func(c *fob.TokenConfig) { c.RefreshGrace = -1 })
			m := newManager(t, bare{fault}, cfg)
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			second := mustRefresh(t, m, first.Refresh)
			fault.InjectOnce(backendtest.OpPut, backendtest.Injection{Delay: hangs})
			ctx, leave := context.WithCancel(t.Context())
			replayed := make(chan error, 1)
			go func() {
				_, err := m.Refresh(ctx, first.Refresh.Reveal())
				replayed <- err
			}()
			synctest.Wait()
			leave()
			began := time.Now()
			_ = m.Close() // there may be no time left for usage
			require.Equal(t, min(hangs, 10*time.Second), time.Since(began))
			err := <-replayed
			if hangs < 10*time.Second {
				require.ErrorIs(t, err, fob.ErrReplayed)
				later := newManager(t, store, cfg)
				mustNotRefresh(t, later, second.Refresh, fob.ErrRevoked)
				require.NoError(t, later.Close())
			} else {
				require.Error(t, err)
				require.False(t, errors.Is(err, fob.ErrRejected), "it could not be done")
			}
			_, err = m.Refresh(t.Context(), first.Refresh.Reveal())
			require.ErrorIs(t, err, fob.ErrClosed)
		})
	}
}

// What tells a secret that was made here from one that was made up has ten characters, and
// each of them may be any one of 62.
func TestTheTagOfASecretUsesAllThatItHas(t *testing.T) {
	const drawn, tag = 22, keytext.SecretLen - 22
	m := newManager(t, bare{memory.New()}, tokenConfig())
	var seen [tag]map[byte]bool
	for range 1000 {
		issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		block := keytext.Block(issued.Refresh.Reveal())
		for place, c := range block[1+keytext.IDLen+drawn:] {
			if seen[place] == nil {
				seen[place] = make(map[byte]bool)
			}
			seen[place][c] = true
		}
	}
	for place := range seen {
		require.Greater(t, len(seen[place]), 55, place) // by chance one in 10^40 draws fewer
	}
}
