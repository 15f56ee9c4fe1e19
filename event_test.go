package fob_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// only is the one event of a type among those seen so far, which it forgets.
func (o *observed) only(t *testing.T, what fob.EventType) fob.Event {
	t.Helper()
	found := slices.DeleteFunc(o.take(), func(e fob.Event) bool { return e.Type != what })
	require.Len(t, found, 1, "%v", what)
	return found[0]
}

// Every change that a call makes has one event, which says who has made it, to what, whose
// that is, and what came of it.
func TestEveryChangeIsToldWithAllThatIsKnownOfIt(t *testing.T) {
	seen, clock := &observed{}, newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.Observer, cfg.Imported = seen, located()
	m := newManager(t, nil, cfg)
	ops, ci := fob.User("ops").In("acme"), fob.App("ci").In("acme")
	_, admin := mustIssue(t, m, fob.KeySpec{Subject: ops})
	actor := fob.Actor{Credential: admin, Name: "Ada", Address: "192.0.2.7"}
	ctx := fob.WithActor(t.Context(), actor)
	seen.take()
	told := func(what fob.EventType) fob.Event {
		t.Helper()
		e := seen.only(t, what)
		require.Equal(t, actor, e.Actor)
		require.Equal(t, clock.Now(), e.At)
		require.NoError(t, e.Err)
		return e
	}
	toldOfCI := func(what fob.EventType) fob.Event {
		t.Helper()
		e := told(what)
		require.Equal(t, ci, e.Subject)
		require.Equal(t, fob.Account("acme"), e.Account)
		return e
	}
	spec := fob.KeySpec{Subject: ci, Scopes: fob.Scopes{"a"}}

	secret, key, err := m.IssueKey(ctx, spec)
	require.NoError(t, err)
	e := toldOfCI(fob.EventIssued)
	require.Equal(t, key.ID(), e.ID)
	require.Equal(t, fob.Scopes{"a"}, e.After.Scopes())
	require.Nil(t, e.Before)
	require.Nil(t, e.Token)

	imported, err := m.ImportKey(ctx, spec, fob.ImportedKey{Secret: "theirs.0123456789", Locator: "theirs"})
	require.NoError(t, err)
	e = toldOfCI(fob.EventImported)
	require.Equal(t, imported.ID(), e.ID)
	require.True(t, e.After.Imported())

	scopes := fob.Scopes{"b"}
	_, err = m.UpdateKey(ctx, imported.ID(), fob.KeyUpdate{Scopes: &scopes})
	require.NoError(t, err)
	e = toldOfCI(fob.EventUpdated)
	require.Equal(t, imported.ID(), e.ID)
	require.Equal(t, fob.Scopes{"a"}, e.Before.Scopes())
	require.Equal(t, scopes, e.After.Scopes())

	require.NoError(t, m.Disable(ctx, imported.ID(), "unpaid"))
	e = toldOfCI(fob.EventDisabled)
	require.Equal(t, []any{imported.ID(), fob.Target(imported.ID()), fob.RevokeReason("unpaid")}, []any{e.ID, e.Target, e.Reason})
	require.Equal(t, []fob.Status{fob.StatusActive, fob.StatusDisabled}, []fob.Status{e.Before.StatusAt(clock.Now()), e.After.StatusAt(clock.Now())})
	require.NoError(t, m.Enable(ctx, imported.ID()))
	e = toldOfCI(fob.EventEnabled)
	require.Equal(t, imported.ID(), e.ID)
	require.Equal(t, []fob.Status{fob.StatusDisabled, fob.StatusActive}, []fob.Status{e.Before.StatusAt(clock.Now()), e.After.StatusAt(clock.Now())})

	_, successor, err := m.RotateKey(ctx, imported.ID(), fob.Rotation{})
	require.NoError(t, err)
	e = toldOfCI(fob.EventRotated)
	require.Equal(t, []fob.ID{imported.ID(), successor.ID()}, []fob.ID{e.ID, e.Other})
	require.Equal(t, []fob.ID{imported.ID(), successor.ID()}, []fob.ID{e.Before.ID(), e.After.ID()})

	issued, err := m.IssueToken(ctx, fob.TokenSpec{Subject: ci, Refreshable: true})
	require.NoError(t, err)
	e = toldOfCI(fob.EventIssued)
	require.Equal(t, []fob.ID{issued.Token.ID(), issued.Token.Session()}, []fob.ID{e.ID, e.Other})
	require.Equal(t, issued.Token.ID(), e.Token.ID())
	require.Nil(t, e.After)

	alone, err := m.IssueToken(ctx, fob.TokenSpec{Subject: ci})
	require.NoError(t, err)
	e = toldOfCI(fob.EventIssued)
	require.Equal(t, []fob.ID{alone.Token.ID(), {}}, []fob.ID{e.ID, e.Other}, "it has no session")

	exchanged, err := m.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{})
	require.NoError(t, err)
	e = toldOfCI(fob.EventExchanged)
	require.Equal(t, []fob.ID{key.ID(), exchanged.Token.ID()}, []fob.ID{e.ID, e.Other})
	require.Equal(t, key.ID(), e.Token.Parent())

	refreshed, err := m.Refresh(ctx, issued.Refresh.Reveal())
	require.NoError(t, err)
	e = toldOfCI(fob.EventRefreshed)
	require.Equal(t, []fob.ID{issued.Token.Session(), refreshed.Token.ID()}, []fob.ID{e.ID, e.Other})
	_, err = m.Refresh(ctx, issued.Refresh.Reveal())
	require.NoError(t, err)
	require.Equal(t, refreshed.Token.ID(), toldOfCI(fob.EventRefreshed).Other, "it was given out once more")
	clock.Add(time.Minute)
	_, err = m.Refresh(ctx, issued.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrReplayed)
	e = toldOfCI(fob.EventReplayed)
	require.Equal(t, issued.Token.Session(), e.ID)

	exchanged, err = m.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{Refreshable: true})
	require.NoError(t, err)
	require.Equal(t, exchanged.Token.Session(), toldOfCI(fob.EventExchanged).Token.Session())
	for _, id := range []fob.ID{key.ID(), exchanged.Token.Session()} {
		_, err = m.Revoke(ctx, id, "leaked")
		require.NoError(t, err)
		e = toldOfCI(fob.EventRevoked)
		require.Equal(t, []any{id, fob.Target(id), fob.RevokeReason("leaked")}, []any{e.ID, e.Target, e.Reason})
	}
	_, err = m.Revoke(ctx, alone.Token.ID(), "")
	require.NoError(t, err)
	e = told(fob.EventRevoked)
	require.Equal(t, alone.Token.ID(), e.ID)
	require.Zero(t, e.Subject, "a token has no record that tells")

	for _, target := range []fob.Target{ci, fob.Account("acme"), fob.AllTokens(time.Time{})} {
		require.NoError(t, m.Disable(ctx, target, "unpaid"))
		disabled := told(fob.EventDisabled)
		require.NoError(t, m.Enable(ctx, target))
		enabled := told(fob.EventEnabled)
		_, err = m.Revoke(ctx, target, "left")
		require.NoError(t, err)
		revoked := told(fob.EventRevoked)
		for _, e := range []fob.Event{disabled, enabled, revoked} {
			require.Equal(t, target, e.Target)
			require.Zero(t, e.ID)
			switch target.(type) {
			case fob.Subject:
				require.Equal(t, ci, e.Subject)
				require.Equal(t, fob.Account("acme"), e.Account)
			case fob.Account:
				require.Zero(t, e.Subject)
				require.Equal(t, fob.Account("acme"), e.Account)
			default:
				require.Zero(t, e.Account)
			}
		}
		require.NotZero(t, revoked.Epoch)
	}

	_, err = m.RotateTokenKey(ctx)
	require.NoError(t, err)
	told(fob.EventTokenKeyRotated)
}

func TestTheActorIsWhoTheContextNames(t *testing.T) {
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Observer: seen})
	_, one := mustIssue(t, m, fob.KeySpec{})
	_, two := mustIssue(t, m, fob.KeySpec{})
	var none *fob.Key
	verified := fob.NewContext(t.Context(), one)
	for name, c := range map[string]struct {
		ctx  context.Context
		want fob.Actor
	}{
		"nobody":                           {t.Context(), fob.Actor{}},
		"whom the middleware has verified": {verified, fob.Actor{Credential: one}},
		"who is named, too":                {fob.WithActor(verified, fob.Actor{Name: "Ada"}), fob.Actor{Credential: one, Name: "Ada"}},
		"another credential":               {fob.WithActor(verified, fob.Actor{Credential: two}), fob.Actor{Credential: two}},
		"the last of two":                  {fob.WithActor(fob.WithActor(verified, fob.Actor{Name: "Ada"}), fob.Actor{Address: "a"}), fob.Actor{Credential: one, Address: "a"}},
		"a nil pointer":                    {fob.WithActor(t.Context(), fob.Actor{Credential: none, Name: "Ada"}), fob.Actor{Name: "Ada"}},
		"a nil pointer, verified":          {fob.NewContext(t.Context(), none), fob.Actor{}},
	} {
		t.Run(name, func(t *testing.T) {
			seen.take()
			_, _, err := m.IssueKey(c.ctx, fob.KeySpec{Subject: fob.App("a")})
			require.NoError(t, err)
			require.Equal(t, c.want, seen.only(t, fob.EventIssued).Actor)
		})
	}
}

// What is in doubt is told, because the process may end before it calls again.
func TestWhatMayHaveBeenMadeIsTold(t *testing.T) {
	imported := fob.ImportedKey{Secret: "theirs.0123456789", Locator: "theirs"}
	for what, change := range map[fob.EventType]func(ctx context.Context, m *fob.Manager, k *fob.Key) error{
		fob.EventIssued: func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, _, err := m.IssueKey(ctx, fob.KeySpec{Subject: k.Subject()})
			return err
		},
		fob.EventImported: func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, err := m.ImportKey(ctx, fob.KeySpec{Subject: k.Subject()}, imported)
			return err
		},
		fob.EventRotated: func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			_, _, err := m.RotateKey(ctx, k.ID(), fob.Rotation{})
			return err
		},
		fob.EventUpdated: func(ctx context.Context, m *fob.Manager, k *fob.Key) error {
			name := "other"
			_, err := m.UpdateKey(ctx, k.ID(), fob.KeyUpdate{Name: &name})
			return err
		},
		fob.EventTokenKeyRotated: func(ctx context.Context, m *fob.Manager, _ *fob.Key) error {
			_, err := m.RotateTokenKey(ctx)
			return err
		},
	} {
		t.Run(what.String(), func(t *testing.T) {
			fault, seen := backendtest.NewFault(memory.New()), &observed{}
			cfg := tokenConfig()
			cfg.Observer, cfg.Imported = seen, located()
			m := newManager(t, fault, cfg)
			_, key := mustIssue(t, m, fob.KeySpec{})
			_, err := m.TokenKeys(t.Context())
			require.NoError(t, err)
			seen.take()
			fault.Inject(func(call backendtest.Call) backendtest.Injection {
				if call.Op == backendtest.OpPut {
					return backendtest.LostAck()
				}
				return backendtest.Injection{}
			})
			require.ErrorIs(t, change(t.Context(), m, key), fob.ErrIndeterminate)
			require.ErrorIs(t, seen.only(t, what).Err, fob.ErrIndeterminate)
		})
	}
}

// A session ends in two writes. A refresh that finds the second one missing makes it, and
// reports the revocation, because nobody else may have.
func TestARefreshThatFinishesARevocationReportsIt(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	crashed := newManager(t, bare{fault}, tokenConfig())
	issued := mustToken(t, crashed, fob.TokenSpec{Refreshable: true})
	fault.CrashAfter(1, backendtest.OpPut)
	_, err := crashed.Revoke(t.Context(), issued.Token.Session(), "leaked")
	require.ErrorIs(t, err, fob.ErrIndeterminate)
	fault.Inject(nil)

	seen, cfg := &observed{}, tokenConfig()
	cfg.Observer = seen
	m := newManager(t, bare{fault}, cfg)
	mustNotRefresh(t, m, issued.Refresh, fob.ErrRevoked)
	e := seen.only(t, fob.EventRevoked)
	require.Equal(t, []any{issued.Token.Session(), fob.Target(issued.Token.Session()), fob.RevokeReason("leaked"), issued.Token.Subject()}, []any{e.ID, e.Target, e.Reason, e.Subject})
	mustNotRefresh(t, m, issued.Refresh, fob.ErrRevoked)
	require.Empty(t, seen.types(), "it is finished")
}

// An Observer belongs to the application. Its faults cost the event, and not the change.
func TestAnObserverThatPanicsKeepsNobodyFromTheirChange(t *testing.T) {
	seen, broken := &observed{}, true
	m := newManager(t, nil, fob.Config{Observer: fob.Observers(
		fob.ObserverFunc(func(context.Context, fob.Event) {
			if broken {
				panic("disk full")
			}
		}),
		seen,
		fob.ObserverFunc(func(context.Context, fob.Event) {
			if broken {
				panic("so is mine")
			}
		}),
		seen,
	)})
	text, key := mustIssue(t, m, fob.KeySpec{})
	require.Equal(t, []fob.EventType{fob.EventIssued, fob.EventIssued}, seen.types(), "each of the others has its event")
	h := m.Health()
	require.Equal(t, uint64(1), h.EventsLost, "an event, and not a panic")
	require.ErrorContains(t, h.EventErr, "fob: observer: issued: panicked: so is mine")
	receipt, err := m.Revoke(t.Context(), key.ID(), "leaked")
	require.NoError(t, err)
	require.False(t, receipt.At.IsZero())
	mustReject(t, m, text, fob.ErrRevoked)
	require.Equal(t, uint64(2), m.Health().EventsLost)
	broken = false
	mustIssue(t, m, fob.KeySpec{})
	require.Equal(t, uint64(2), m.Health().EventsLost)
	require.Len(t, seen.types(), 6)
}

func TestObserversOfWhichOneIsMissingAreRefused(t *testing.T) {
	for _, o := range []fob.Observer{
		fob.Observers(&observed{}, nil), fob.Observers((*observed)(nil)), fob.Observers(fob.ObserverFunc(nil)), fob.Observers(fob.LogEvents(nil)),
	} {
		_, err := fob.New(memory.New(), fob.Config{Observer: o})
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
	m := newManager(t, nil, fob.Config{Observer: fob.Observers()})
	mustIssue(t, m, fob.KeySpec{})
	require.Zero(t, m.Health().EventsLost)

	seen := &observed{}
	list := []fob.Observer{seen}
	m = newManager(t, nil, fob.Config{Observer: fob.Observers(list...)})
	list[0] = nil
	mustIssue(t, m, fob.KeySpec{})
	require.Len(t, seen.types(), 1, "the list was copied")
}

// usedLater is a Manager in a bubble, whose clock can be moved by days while the bubble's own
// goes on by minutes.
func usedLater(t *testing.T, store backend.Store) (m *fob.Manager, seen *observed, days func(n int)) {
	var ahead atomic.Int64
	seen = &observed{}
	m = newManager(t, store, fob.Config{Observer: seen, Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	return m, seen, func(n int) { ahead.Add(int64(n) * int64(24*time.Hour)) }
}

// Whoever rotates a key wants to know when its holder has changed over.
func TestTheFirstUseOfASuccessorIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m, seen, _ := usedLater(t, fault)
		defer m.Close()
		text, old := mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci").In("acme")})
		mustVerify(t, m, text)
		secret, successor, err := m.RotateKey(t.Context(), old.ID(), fob.Rotation{Overlap: time.Hour})
		require.NoError(t, err)
		pass(2 * time.Minute)
		require.NotContains(t, seen.types(), fob.EventSuccessorUsed, "only the old key was used")
		mustVerify(t, m, secret.Reveal())
		require.NotContains(t, seen.types(), fob.EventSuccessorUsed, "a verification waits for no event")
		pass(2 * time.Minute)
		e := seen.only(t, fob.EventSuccessorUsed)
		require.Equal(t, []fob.ID{old.ID(), successor.ID()}, []fob.ID{e.ID, e.Other})
		require.Equal(t, successor.ID(), e.After.ID())
		require.Equal(t, fob.Account("acme"), e.Account)
		require.Zero(t, e.Actor, "nobody asked for it")
		for range 3 {
			mustVerify(t, m, secret.Reveal())
			pass(2 * time.Minute)
		}
		require.Empty(t, seen.types())
	})
}

func TestAKeyThatIsUsedAgainAfterAMonthIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m, seen, days := usedLater(t, fault)
		text, key := mustIssue(t, m, fob.KeySpec{})
		late, lateKey := mustIssue(t, m, fob.KeySpec{})
		mustVerify(t, m, text)
		pass(2 * time.Minute)
		days(29)
		mustVerify(t, m, text)
		pass(2 * time.Minute)
		require.NotContains(t, seen.types(), fob.EventUsedAgain)
		days(31)
		mustVerify(t, m, text)
		pass(2 * time.Minute)
		e := seen.only(t, fob.EventUsedAgain)
		require.Equal(t, key.ID(), e.ID)
		require.Equal(t, key.Subject(), e.Subject)
		require.InDelta(t, 31*24*time.Hour, e.Idle, float64(5*time.Minute))

		mustVerify(t, m, late)
		pass(2 * time.Minute)
		e = seen.only(t, fob.EventUsedAgain)
		require.Equal(t, lateKey.ID(), e.ID, "it was never used since it was issued")
		require.InDelta(t, 60*24*time.Hour, e.Idle, float64(10*time.Minute))
		require.NoError(t, m.Close())
	})
}

// What Close writes is told, too: the process that ends is often the last to use a key.
func TestWhatCloseWritesIsTold(t *testing.T) {
	clock, seen := newClock(), &observed{}
	store := memory.New()
	m := newManager(t, store, fob.Config{Clock: clock.Now, Observer: seen})
	text, key := mustIssue(t, m, fob.KeySpec{})
	clock.Add(40 * 24 * time.Hour)
	mustVerify(t, m, text)
	require.NoError(t, m.Close())
	require.Equal(t, key.ID(), seen.only(t, fob.EventUsedAgain).ID)
}

func TestWhatCannotBeFoundOutOfAUseIsTold(t *testing.T) {
	fault, seen := backendtest.NewFault(memory.New()), &observed{}
	m := newManager(t, fault, fob.Config{Observer: seen})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	fault.Inject(func(call backendtest.Call) backendtest.Injection {
		if call.Op == backendtest.OpUsage {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	require.NoError(t, m.Close(), "usage was written")
	require.ErrorContains(t, seen.only(t, fob.EventUpkeepFailed).Err, "find out what was used again")
}

// each is an event of each type, with all that it may hold.
func each(t *testing.T) (all []fob.Event, key *fob.Key, token *fob.Token) {
	m := newManager(t, nil, tokenConfig())
	_, key = mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci").In("acme"), Meta: map[string]string{"note": "not for logs"}})
	token = mustToken(t, m, fob.TokenSpec{Refreshable: true}).Token
	for what := fob.EventIssued; what.String() != "invalid"; what++ {
		all = append(all, fob.Event{
			Type: what, At: key.IssuedAt(), ID: key.ID(), Other: token.ID(), Subject: key.Subject(), Account: "acme", Target: fob.Account("acme"), Epoch: 7,
			Before: key, After: key, Token: token, Actor: fob.Actor{Credential: token, Name: "Ada\nfob: forged", Address: "192.0.2.7"}, Reason: "left", Count: 3, Idle: 31 * 24 * time.Hour,
			Err: errors.New("no such host"),
		})
	}
	return all, key, token
}

func TestEveryTypeOfEventIsLoggedWithItsFields(t *testing.T) {
	all, key, token := each(t)
	others := map[fob.EventType]string{fob.EventIssued: "session", fob.EventExchanged: "token", fob.EventRefreshed: "token"}
	require.Len(t, all, int(fob.EventUsedAgain))
	names := map[string]bool{}
	for _, e := range all {
		t.Run(e.Type.String(), func(t *testing.T) {
			require.Regexp(t, "^[a-z_]+$", e.Type.String())
			require.False(t, names[e.Type.String()])
			names[e.Type.String()] = true
			text, err := e.Type.MarshalText()
			require.NoError(t, err)
			require.Equal(t, e.Type.String(), string(text))

			var out bytes.Buffer
			fob.LogEvents(slog.New(slog.NewJSONHandler(&out, nil))).Observe(t.Context(), e)
			require.Equal(t, 1, strings.Count(out.String(), "\n"), "a name cannot forge a line")
			var line map[string]any
			require.NoError(t, json.Unmarshal(out.Bytes(), &line))
			delete(line, "time")
			other := others[e.Type]
			if other == "" {
				other = "successor"
			}
			require.Equal(t, map[string]any{
				"level": "WARN", "msg": "fob: " + e.Type.String(), "id": key.ID().String(), other: token.ID().String(),
				"subject": map[string]any{"kind": "application", "name": "ci", "account": "acme"}, "account": "acme", "target": "account acme", "epoch": 7.0,
				"actor": map[string]any{
					"id": token.ID().String(), "subject": map[string]any{"kind": "user", "name": "user-7"}, "name": "Ada\nfob: forged", "address": "192.0.2.7",
				},
				"reason": "left", "count": 3.0, "idle": float64(31 * 24 * time.Hour), "error": "no such host",
			}, line)
		})
	}
	var out bytes.Buffer
	log := fob.LogEvents(slog.New(slog.NewTextHandler(&out, nil)))
	for target, want := range map[fob.Target]string{
		nil: "", key.ID(): `target="id ` + key.ID().String(), key.Subject(): `target="application ci of acme"`, fob.AllTokens(time.Time{}): `target="all tokens"`,
	} {
		out.Reset()
		log.Observe(t.Context(), fob.Event{Type: fob.EventRevoked, Target: target})
		require.Contains(t, out.String(), `level=INFO msg="fob: revoked"`)
		require.Contains(t, out.String(), want)
		require.NotContains(t, out.String(), "actor")
	}
}
