package fob_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// holding is one of everything that hangs below an account, and what it is presented as.
type holding struct {
	subject         fob.Subject
	key             *fob.Key
	keyText         string
	direct, derived fob.Issued // a token of the subject, and a session of the key
	session         fob.ID
}

func hold(t *testing.T, m *fob.Manager, of fob.Subject) holding {
	t.Helper()
	h := holding{subject: of}
	h.keyText, h.key = mustIssue(t, m, fob.KeySpec{Subject: of, Scopes: fob.Scopes{"orders:read"}})
	h.direct = mustToken(t, m, fob.TokenSpec{Subject: of})
	h.derived = mustExchange(t, m, h.keyText, fob.TokenSpec{Refreshable: true})
	h.session = h.derived.Token.Session()
	return h
}

// answers are what a Manager says of all that h has.
func (h *holding) answers(m fob.Verifier) map[string]error {
	said := map[string]error{}
	for name, text := range map[string]string{"key": h.keyText, "token": h.direct.Access.Reveal(), "session": h.derived.Access.Reveal()} {
		_, said[name] = m.Verify(context.Background(), text)
	}
	return said
}

// Two subjects of one name in two accounts, or of two kinds, never meet.
func TestSubjectsOfOneNameNeverMeet(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	all := []fob.Subject{
		fob.App("ci"), fob.User("ci"), fob.App("ci").In("acme"), fob.User("ci").In("acme"), fob.App("ci").In("umbrella"),
		// Look-alikes are not folded: they are other names.
		fob.App("CI"), fob.App("ci").In("Acme"), fob.App("сi"), fob.App("ci").In("acme\u200b"),
		// Nor is a part of one text taken for a part of the other.
		fob.App("eci").In("acm"), fob.App("acmeci"), fob.App("4acmeci"), fob.App("\u0004acmeci"[1:]),
	}
	held := map[fob.Subject]holding{}
	spec := fob.KeySpec{IdempotencyKey: requestID}
	once := map[string]fob.Subject{}
	for _, s := range all {
		if _, twice := held[s]; twice {
			continue
		}
		held[s] = hold(t, m, s)
		spec.Subject = s
		text, key := mustIssue(t, m, spec)
		require.NotContains(t, once, text, "one idempotency key of two subjects")
		once[text] = s
		require.Equal(t, s, key.Subject())
		require.Equal(t, s, mustVerify(t, m, text).Subject())
		require.Equal(t, s, mustVerify(t, m, held[s].direct.Access.Reveal()).Subject())
		require.Equal(t, s, mustVerify(t, m, held[s].derived.Access.Reveal()).Subject())
	}
	for s, h := range held {
		page, err := m.List(t.Context(), fob.Query{Subject: s})
		require.NoError(t, err)
		require.Len(t, page.Items, 2, s)
		require.NoError(t, m.Disable(t.Context(), s, ""))
		for other, o := range held {
			for what, err := range o.answers(m) {
				if other == s {
					require.ErrorIs(t, err, fob.ErrDisabled, what)
				} else {
					require.NoError(t, err, "%s of %s, when %s is disabled", what, other, s)
				}
			}
		}
		require.NoError(t, m.Enable(t.Context(), s))
		for what, err := range h.answers(m) {
			require.NoError(t, err, what)
		}
	}
}

// Each verb holds for everything below its target and nothing else, here at once, through
// the feed elsewhere, and for whoever reads the store.
func TestEachVerbActsOnEverythingBelowItsTarget(t *testing.T) {
	type targets func(h holding) fob.Target
	for name, c := range map[string]struct {
		target targets
		ends   []string
		others bool // it reaches the other subject of the account
	}{
		"the account": {func(holding) fob.Target { return fob.Account("acme") }, []string{"key", "token", "session"}, true},
		"the subject": {func(h holding) fob.Target { return h.subject }, []string{"key", "token", "session"}, false},
		"the key":     {func(h holding) fob.Target { return h.key.ID() }, []string{"key", "session"}, false},
		"the session": {func(h holding) fob.Target { return h.session }, []string{"session"}, false},
		"the token":   {func(h holding) fob.Target { return h.direct.Token.ID() }, []string{"token"}, false},
		"all tokens":  {func(holding) fob.Target { return fob.AllTokens(time.Time{}) }, []string{"token", "session"}, true},
	} {
		for _, verb := range []string{"revoke", "disable"} {
			t.Run(verb+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := memory.New()
					defer func() { require.NoError(t, store.Close()) }()
					here, there := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())
					defer here.Close()
					defer there.Close()
					mine, other := hold(t, here, fob.App("ci").In("acme")), hold(t, here, fob.User("ann").In("acme"))
					stranger := hold(t, here, fob.App("ci").In("umbrella"))
					check := func(v fob.Verifier, want error) {
						t.Helper()
						for _, h := range []holding{mine, other, stranger} {
							for what, err := range h.answers(v) {
								hit := h.subject == mine.subject || c.others && (h.subject.Account == "acme" || name == "all tokens")
								if expected := want; hit && slices.Contains(c.ends, what) && expected != nil {
									require.ErrorIs(t, err, expected, "%s of %s", what, h.subject)
								} else {
									require.NoError(t, err, "%s of %s", what, h.subject)
								}
							}
						}
					}
					check(here, nil)
					check(there, nil)
					pass(2 * time.Second)
					target := c.target(mine)
					if verb == "disable" {
						require.NoError(t, here.Disable(t.Context(), target, "unpaid"))
						require.NoError(t, here.Disable(t.Context(), target, "unpaid"), "again")
						for _, v := range []fob.Verifier{here, here.Fresh(), there.Fresh()} {
							check(v, fob.ErrDisabled)
						}
						pass(time.Second)
						check(there, fob.ErrDisabled)
						require.NoError(t, there.Enable(t.Context(), target))
						require.NoError(t, there.Enable(t.Context(), target), "again")
						check(there, nil)
						pass(time.Second)
						check(here, nil)
					}
					receipt, err := there.Revoke(t.Context(), target, "left")
					require.NoError(t, err)
					require.False(t, receipt.Already)
					require.False(t, receipt.Unknown)
					check(there, fob.ErrRevoked)
					require.NoError(t, receipt.Wait(t.Context()))
					for _, v := range []fob.Verifier{here, here.Fresh(), there.Fresh()} {
						check(v, fob.ErrRevoked)
					}
					if _, single := target.(fob.ID); single {
						require.ErrorIs(t, here.Enable(t.Context(), target), fob.ErrRevoked)
						require.ErrorIs(t, here.Disable(t.Context(), target, ""), fob.ErrRevoked)
						receipt, err = here.Revoke(t.Context(), target, "")
						require.NoError(t, err)
						require.True(t, receipt.Already)
						return
					}
					again := hold(t, here, mine.subject) // let in again
					for what, err := range again.answers(here) {
						require.NoError(t, err, what)
					}
				})
			})
		}
	}
}

// A target that was never seen is an error for an ID only; for the others the receipt says so.
func TestATargetThatWasNeverSeen(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	_, err := m.Revoke(t.Context(), fob.ID{1}, "")
	require.ErrorIs(t, err, fob.ErrNotFound)
	hold(t, m, fob.App("ci").In("acme"))
	mustToken(t, m, fob.TokenSpec{Subject: fob.User("only in tokens").In("tokens only")})
	for target, unknown := range map[fob.Target]bool{
		fob.Account("acme"): false, fob.Account("acne"): true, fob.Account("tokens only"): true,
		fob.App("ci").In("acme"): false, fob.App("ci"): true, fob.User("ci").In("acme"): true,
	} {
		receipt, err := m.Revoke(t.Context(), target, "")
		require.NoError(t, err)
		require.Equal(t, unknown, receipt.Unknown, target)
		receipt, err = m.Revoke(t.Context(), target, "")
		require.NoError(t, err)
		require.False(t, receipt.Unknown, "now something was said about it")
		require.NoError(t, m.Disable(t.Context(), target, ""))
		require.NoError(t, m.Enable(t.Context(), target))
	}
}

// Whatever is switched and revoked in whatever order, a credential is accepted just if
// nothing above it is off, and never again after a revocation: to enable something brings
// back exactly what was on before.
func TestEnablingBringsBackExactlyWhatWasOn(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 13))
			var store backend.Store = memory.New()
			defer func() { require.NoError(t, store.Close()) }()
			if seed%4 == 3 {
				store = bare{store} // nobody hears of anything: what is in the cache grows old
			}
			managers := []*fob.Manager{newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())}
			for _, m := range managers {
				defer m.Close()
			}
			held := []holding{
				hold(t, managers[0], fob.App("ci").In("acme")), hold(t, managers[0], fob.User("ann").In("acme")), hold(t, managers[0], fob.App("ci")),
			}
			type state = struct{ off, over bool }
			states := map[fob.Target]*state{fob.Account("acme"): {}}
			above := map[string][]fob.Target{}
			for i, h := range held {
				for what, list := range map[string][]fob.Target{
					"key": {h.key.ID()}, "token": {h.direct.Token.ID()}, "session": {h.session, h.key.ID()},
				} {
					list = append(list, h.subject)
					if h.subject.Account != "" {
						list = append(list, h.subject.Account)
					}
					above[fmt.Sprint(i, what)] = list
					for _, target := range list {
						if states[target] == nil {
							states[target] = &state{}
						}
					}
				}
			}
			var targets []fob.Target
			for _, list := range []string{"0key", "0token", "0session", "1key", "1session", "2key", "2token"} {
				targets = append(targets, above[list]...)
			}
			for range 60 {
				m, target := managers[r.IntN(2)], targets[r.IntN(len(targets))]
				s := states[target]
				_, single := target.(fob.ID)
				switch n := r.IntN(20); {
				case n == 0:
					_, err := m.Revoke(t.Context(), target, "")
					require.NoError(t, err)
					s.over = true
				case n < 11:
					err := m.Disable(t.Context(), target, "")
					if single && (s.over || managesOver(states, above, target)) {
						require.ErrorIs(t, err, fob.ErrRevoked)
						break
					}
					require.NoError(t, err)
					s.off = true
				default:
					err := m.Enable(t.Context(), target)
					if single && (s.over || managesOver(states, above, target)) {
						require.ErrorIs(t, err, fob.ErrRevoked)
						break
					}
					require.NoError(t, err)
					s.off = false
				}
				for _, v := range []fob.Verifier{m, managers[0].Fresh()} {
					for i, h := range held {
						for what, err := range h.answers(v) {
							var want error
							for _, target := range above[fmt.Sprint(i, what)] {
								switch s := states[target]; {
								case s.over:
									want = fob.ErrRevoked
								case s.off && want == nil:
									want = fob.ErrDisabled
								}
							}
							require.ErrorIs(t, err, want, "seed %d: %s of %s", seed, what, h.subject)
						}
						for _, reader := range managers {
							k, err := reader.Get(t.Context(), h.key.ID())
							require.NoError(t, err)
							require.Equal(t, status(states, above[fmt.Sprint(i, "key")]), k.StatusAt(time.Now()), "seed %d: Get of %s", seed, h.subject)
						}
					}
				}
				pass(2 * time.Second) // the other has heard of it, or its answers are too old
			}
		})
	}
}

// status is that of a key, by what was done to it and to what it hangs from.
func status(states map[fob.Target]*struct{ off, over bool }, from []fob.Target) fob.Status {
	now := fob.StatusActive
	for _, target := range from {
		switch s := states[target]; {
		case s.over:
			return fob.StatusRevoked
		case s.off:
			now = fob.StatusDisabled
		}
	}
	return now
}

// managesOver reports whether a key cannot be switched because its subject or its account
// was revoked. A token and a session have no such check: nobody is asked about what they
// hang from.
func managesOver(states map[fob.Target]*struct{ off, over bool }, above map[string][]fob.Target, target fob.Target) bool {
	for name, list := range above {
		if strings.HasSuffix(name, "key") && list[0] == target {
			for _, holder := range list[1:] {
				if states[holder].over {
					return true
				}
			}
		}
	}
	return false
}

// What makes no sense is a typed error at the border, and writes nothing.
func TestBadInputWritesNothing(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	cfg := tokenConfig()
	cfg.Roles = fob.Roles{"viewer": {"a:read"}}
	m := newManager(t, fault, cfg)
	ok := fob.App("ci").In("acme")
	long := strings.Repeat("x", 10<<10)
	text, key := mustIssue(t, m, fob.KeySpec{Subject: ok, TTL: time.Hour, Scopes: fob.Scopes{"a:*"}})
	off, offKey := mustIssue(t, m, fob.KeySpec{Subject: ok})
	require.NoError(t, m.Disable(t.Context(), offKey.ID(), ""))
	offKey, err := m.Get(t.Context(), offKey.ID())
	require.NoError(t, err)
	caller := mustVerify(t, m, text)
	_ = off
	meta := func(n, size int) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprint(i)] = strings.Repeat("v", size)
		}
		return out
	}
	spec := func(change func(*fob.KeySpec)) func() error {
		return func() error {
			s := fob.KeySpec{Subject: ok}
			change(&s)
			_, _, err := m.IssueKey(t.Context(), s)
			return err
		}
	}
	puts := fault.Calls(backendtest.OpPut)
	for name, c := range map[string]struct {
		call func() error
		want error
	}{
		"no subject":                {spec(func(s *fob.KeySpec) { s.Subject = fob.Subject{} }), fob.ErrInvalid},
		"a subject without a kind":  {spec(func(s *fob.KeySpec) { s.Subject.Kind = 0 }), fob.ErrInvalid},
		"of another kind":           {spec(func(s *fob.KeySpec) { s.Subject.Kind = 3 }), fob.ErrInvalid},
		"no name":                   {spec(func(s *fob.KeySpec) { s.Subject.Name = "" }), fob.ErrInvalid},
		"control characters":        {spec(func(s *fob.KeySpec) { s.Subject.Name = "a\x00" }), fob.ErrInvalid},
		"an account with them":      {spec(func(s *fob.KeySpec) { s.Subject.Account = "a\n" }), fob.ErrInvalid},
		"10 kB of name":             {spec(func(s *fob.KeySpec) { s.Subject.Name = long }), fob.ErrInvalid},
		"10 kB of account":          {spec(func(s *fob.KeySpec) { s.Subject.Account = fob.Account(long) }), fob.ErrInvalid},
		"broken UTF-8":              {spec(func(s *fob.KeySpec) { s.Subject.Account = "a\xff" }), fob.ErrInvalid},
		"33 entries of metadata":    {spec(func(s *fob.KeySpec) { s.Meta = meta(33, 1) }), fob.ErrInvalid},
		"5 kB of metadata":          {spec(func(s *fob.KeySpec) { s.Meta = meta(5, 1<<10) }), fob.ErrInvalid},
		"metadata without a name":   {spec(func(s *fob.KeySpec) { s.Meta = map[string]string{"": "x"} }), fob.ErrInvalid},
		"a role that is not there":  {spec(func(s *fob.KeySpec) { s.Roles = []string{"root"} }), fob.ErrInvalid},
		"a role twice":              {spec(func(s *fob.KeySpec) { s.Roles = []string{"viewer", "viewer"} }), fob.ErrInvalid},
		"a grant without actions":   {spec(func(s *fob.KeySpec) { s.Grants = fob.Grants{{Type: "t", Identifiers: []string{"1"}}} }), fob.ErrInvalid},
		"Outlast of nothing":        {spec(func(s *fob.KeySpec) { s.Outlast = true }), fob.ErrInvalid},
		"within a typed nil":        {spec(func(s *fob.KeySpec) { s.Within = (*fob.Key)(nil) }), fob.ErrInvalid},
		"within a disabled key":     {spec(func(s *fob.KeySpec) { s.Within = offKey }), fob.ErrScope},
		"within another account":    {spec(func(s *fob.KeySpec) { s.Within, s.Subject.Account = caller, "umbrella" }), fob.ErrScope},
		"within, and of no account": {spec(func(s *fob.KeySpec) { s.Within, s.Subject.Account = caller, "" }), fob.ErrScope},
		"within, and more":          {spec(func(s *fob.KeySpec) { s.Within, s.Scopes = caller, fob.Scopes{"b:read"} }), fob.ErrScope},
		"within, and all":           {spec(func(s *fob.KeySpec) { s.Within, s.Scopes = caller, fob.Scopes{fob.ScopeAll} }), fob.ErrScope},
		"within, and for longer":    {spec(func(s *fob.KeySpec) { s.Within, s.TTL = caller, 2*time.Hour }), fob.ErrScope},
		"no target":                 {func() error { _, err := m.Revoke(t.Context(), nil, ""); return err }, fob.ErrInvalid},
		"no account":                {func() error { return m.Disable(t.Context(), fob.Account(""), "") }, fob.ErrInvalid},
		"a target without a kind":   {func() error { return m.Enable(t.Context(), fob.Subject{Name: "a"}) }, fob.ErrInvalid},
		"the zero ID":               {func() error { return m.Disable(t.Context(), fob.ID{}, "") }, fob.ErrNotFound},
		"a time that is none":       {func() error { return m.Disable(t.Context(), fob.AllTokens(time.Unix(-5, 0)), "") }, fob.ErrInvalid},
		"an update to no role": {func() error {
			_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Roles: &[]string{"root"}})
			return err
		}, fob.ErrInvalid},
		"an update of metadata": {func() error {
			more := meta(40, 1)
			_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Meta: &more})
			return err
		}, fob.ErrInvalid},
	} {
		require.ErrorIs(t, c.call(), c.want, name)
		require.Equal(t, puts, fault.Calls(backendtest.OpPut), name)
	}
	for name, roles := range map[string]fob.Roles{"a name of control": {"a\n": nil}, "a scope with a space": {"a": {"b c"}}, "no name": {"": nil}} {
		_, err := fob.New(memory.New(), fob.Config{Roles: roles})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
	}
	_, err = newManager(t, nil, fob.Config{}).Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.NotErrorIs(t, err, backend.ErrInvalid)
}

// A disabled subject gets no new token; a key can be prepared for it.
func TestNoTokenIsIssuedForWhatIsDisabled(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	ann := fob.User("ann").In("acme")
	for _, target := range []fob.Target{ann, fob.Account("acme")} {
		require.NoError(t, m.Disable(t.Context(), target, "unpaid"))
		_, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: ann})
		require.ErrorIs(t, err, fob.ErrDisabled)
		text, _ := mustIssue(t, m, fob.KeySpec{Subject: ann})
		mustReject(t, m, text, fob.ErrDisabled)
		require.NoError(t, m.Enable(t.Context(), target))
		mustVerify(t, m, text)
		mustToken(t, m, fob.TokenSpec{Subject: ann})
	}
}

// A session of what is disabled or revoked cannot be refreshed, nor can a key be exchanged;
// a refusal that may end costs the session nothing: its secret is good again afterwards.
func TestNothingIsMadeOutOfWhatIsOff(t *testing.T) {
	for name, c := range map[string]struct {
		target   func(h holding) fob.Target
		exchange bool // the key can still be exchanged
	}{
		"the account": {target: func(h holding) fob.Target { return h.subject.Account }},
		"the subject": {target: func(h holding) fob.Target { return h.subject }},
		"the key":     {target: func(h holding) fob.Target { return h.key.ID() }},
		"the session": {func(h holding) fob.Target { return h.session }, true},
		"all tokens":  {func(holding) fob.Target { return fob.AllTokens(time.Time{}) }, true},
	} {
		for _, store := range []backend.Store{memory.New(), bare{memory.New()}} {
			here, there := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())
			h := hold(t, here, fob.App("ci").In("acme"))
			target, refresh := c.target(h), h.derived.Refresh.Reveal()
			check := func(want error) {
				t.Helper()
				for _, m := range []*fob.Manager{here, there} {
					_, err := m.Refresh(t.Context(), refresh)
					require.ErrorIs(t, err, want, name)
					if !c.exchange {
						_, err = m.ExchangeKey(t.Context(), h.keyText, fob.TokenSpec{})
						require.ErrorIs(t, err, want, name)
					}
				}
			}
			if _, ok := backend.As[backend.Watcher](store); ok {
				mustVerify(t, there, h.keyText)
			}
			require.NoError(t, here.Disable(t.Context(), target, "unpaid"))
			check(fob.ErrDisabled)
			require.NoError(t, there.Enable(t.Context(), target))
			next, err := here.Refresh(t.Context(), refresh)
			require.NoError(t, err, name)
			refresh = next.Refresh.Reveal()
			_, err = there.Revoke(t.Context(), target, "left")
			require.NoError(t, err)
			check(fob.ErrRevoked)
		}
	}
}

// Whoever disables some of the tokens that are disabled already lets none of the others in.
func TestDisablingFewerTokensEnablesNone(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	old := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	clock.Add(time.Minute)
	between := clock.Now()
	clock.Add(time.Minute)
	young := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	disable := func(before time.Time) { require.NoError(t, m.Disable(t.Context(), fob.AllTokens(before), "")) }
	disable(between)
	mustReject(t, m, old, fob.ErrDisabled)
	mustVerify(t, m, young)
	disable(time.Time{})
	mustReject(t, m, young, fob.ErrDisabled)
	disable(between)
	mustReject(t, m, old, fob.ErrDisabled)
	mustReject(t, m, young, fob.ErrDisabled)
	require.NoError(t, m.Enable(t.Context(), fob.AllTokens(between)))
	mustVerify(t, m, old)
	mustVerify(t, m, young)
	disable(between)
	mustReject(t, m, old, fob.ErrDisabled)
	mustVerify(t, m, young)
}

// A receipt that was waited for is a promise about every process, also one that hears of
// nothing until its answers are too old.
func TestWhoWaitedForAReceiptKnowsThatItHoldsEverywhere(t *testing.T) {
	for _, target := range []func(h holding) fob.Target{
		func(h holding) fob.Target { return h.key.ID() },
		func(h holding) fob.Target { return h.subject },
		func(h holding) fob.Target { return h.subject.Account },
		func(holding) fob.Target { return fob.AllTokens(time.Time{}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			defer func() { require.NoError(t, store.Close()) }()
			here, deaf := newManager(t, store, tokenConfig()), newManager(t, bare{store}, tokenConfig())
			defer here.Close()
			defer deaf.Close()
			h := hold(t, here, fob.App("ci").In("acme"))
			for _, err := range h.answers(deaf) {
				require.NoError(t, err)
			}
			began := time.Now()
			receipt, err := here.Revoke(t.Context(), target(h), "")
			require.NoError(t, err)
			require.NoError(t, receipt.Wait(t.Context()))
			require.Equal(t, 2*time.Second, time.Since(began))
			_, err = deaf.Verify(t.Context(), h.derived.Access.Reveal())
			require.ErrorIs(t, err, fob.ErrRevoked)
		})
	}
	require.ErrorIs(t, (fob.Receipt{}).Wait(t.Context()), fob.ErrInvalid)
}

// Every spec says whose it is, and asks for nothing that makes no sense; whoever asks within
// something that is over asks for too much.
func TestEverySpecIsChecked(t *testing.T) {
	clock := newClock()
	fault := backendtest.NewFault(memory.New())
	cfg := clocked(tokenConfig(), clock)
	cfg.Imported = &fob.ImportedKeys{Digest: otherDigest}
	m := newManager(t, fault, cfg)
	ok := fob.App("ci").In("acme")
	text, key := mustIssue(t, m, fob.KeySpec{Subject: ok, Scopes: fob.Scopes{fob.ScopeAll}})
	short, _ := mustIssue(t, m, fob.KeySpec{Subject: ok, TTL: time.Minute})
	later, _ := mustIssue(t, m, fob.KeySpec{Subject: ok, TTL: time.Hour})
	expired := mustVerify(t, m, short)
	token := mustVerify(t, m, mustToken(t, m, fob.TokenSpec{Subject: ok, Scopes: fob.Scopes{fob.ScopeAll}}).Access.Reveal())
	caller := mustVerify(t, m, later)
	clock.Add(16 * time.Minute)
	_, err := m.Verify(t.Context(), text) // whatever is written at a first use is written
	require.NoError(t, err)
	puts := fault.Calls(backendtest.OpPut)
	noActions := fob.Grants{{Type: "t", Identifiers: []string{"1"}}}
	issue := func(s fob.KeySpec) error { _, _, err := m.IssueKey(t.Context(), s); return err }
	tokens := func(s fob.TokenSpec) error { _, err := m.IssueToken(t.Context(), s); return err }
	exchange := func(s fob.TokenSpec) error { _, err := m.ExchangeKey(t.Context(), text, s); return err }
	imports := func(s fob.KeySpec) error {
		_, err := m.ImportKey(t.Context(), s, fob.ImportedKey{Digest: otherDigest("ab12cd.foreign")})
		return err
	}
	update := func(u fob.KeyUpdate) error { _, err := m.UpdateKey(t.Context(), key.ID(), u); return err }
	for name, c := range map[string]struct{ err, want error }{
		"a token of nobody":                  {tokens(fob.TokenSpec{}), fob.ErrInvalid},
		"a token of no kind":                 {tokens(fob.TokenSpec{Subject: fob.Subject{Name: "a"}}), fob.ErrInvalid},
		"a token of an account of 10 kB":     {tokens(fob.TokenSpec{Subject: fob.App("a").In(fob.Account(strings.Repeat("a", 10<<10)))}), fob.ErrInvalid},
		"a token of an account with an end":  {tokens(fob.TokenSpec{Subject: fob.App("a").In("a\x00b")}), fob.ErrInvalid},
		"a token of broken UTF-8":            {tokens(fob.TokenSpec{Subject: fob.User("\xff")}), fob.ErrInvalid},
		"a token with a role of nobody":      {tokens(fob.TokenSpec{Subject: ok, Roles: []string{"root"}}), fob.ErrInvalid},
		"a token with a grant of nothing":    {tokens(fob.TokenSpec{Subject: ok, Grants: noActions}), fob.ErrInvalid},
		"an exchange for a role of nobody":   {exchange(fob.TokenSpec{Roles: []string{"root"}}), fob.ErrInvalid},
		"an exchange for a grant of nothing": {exchange(fob.TokenSpec{Grants: noActions}), fob.ErrInvalid},
		"an import of nobody":                {imports(fob.KeySpec{}), fob.ErrInvalid},
		"an import of no kind":               {imports(fob.KeySpec{Subject: fob.Subject{Account: "acme", Name: "a"}}), fob.ErrInvalid},
		"an import with a role of nobody":    {imports(fob.KeySpec{Subject: ok, Roles: []string{"root"}}), fob.ErrInvalid},
		"an update to a grant of nothing":    {update(fob.KeyUpdate{Grants: &noActions}), fob.ErrInvalid},
		"within what has expired":            {issue(fob.KeySpec{Subject: ok, Within: expired}), fob.ErrScope},
		"within a token that has expired":    {issue(fob.KeySpec{Subject: ok, Within: token}), fob.ErrScope},
		"within a token that is none":        {issue(fob.KeySpec{Subject: ok, Within: (*fob.Token)(nil)}), fob.ErrInvalid},
		"within a key that is none":          {issue(fob.KeySpec{Subject: ok, Within: new(fob.Key)}), fob.ErrScope},
		"within what ends before it begins":  {issue(fob.KeySpec{Subject: ok, Within: caller, NotBefore: clock.Now().Add(2 * time.Hour)}), fob.ErrInvalid},
		"a list of an account of 10 kB": {func() error {
			_, err := m.List(t.Context(), fob.Query{Account: fob.Account(strings.Repeat("a", 10<<10))})
			return err
		}(), fob.ErrInvalid},
		"a list of a subject of no kind": {func() error { _, err := m.List(t.Context(), fob.Query{Subject: fob.Subject{Name: "a"}}); return err }(), fob.ErrInvalid},
	} {
		require.ErrorIs(t, c.err, c.want, name)
	}
	require.Equal(t, puts, fault.Calls(backendtest.OpPut), "something was written")
	require.NoError(t, issue(fob.KeySpec{Subject: ok, Within: caller, TTL: time.Minute}), "the callers that are good are")
}
