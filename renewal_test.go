package fob_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// asks is the configuration of an application that looks again at each refresh.
func asks(look func(context.Context, *fob.Renewal) error) fob.Config {
	return tokenConfig(func(c *fob.TokenConfig) { c.OnRefresh = look })
}

// The directory may answer late. A client that has given up meanwhile and comes back with the
// same secret gets its pair: its grace begins when the secret was used, and not when the
// application was asked.
func TestASlowAnswerOfTheApplicationIsNoReplay(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(asks(func(context.Context, *fob.Renewal) error {
		clock.Add(time.Minute)
		return nil
	}), clock))
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true, TTL: 10 * time.Minute})
	next := mustRefresh(t, m, issued.Refresh)
	require.Equal(t, clock.Now(), session(t, m, issued.Token.Session()).RefreshedAt)
	require.Equal(t, clock.Now().Truncate(time.Second).Add(10*time.Minute), next.Token.ExpiresAt(), "its life has just begun")
	clock.Add(9 * time.Second)
	require.Equal(t, next.Refresh.Reveal(), mustRefresh(t, m, issued.Refresh).Refresh.Reveal())
}

// What is said while the application looks is obeyed, as if it had been said before.
func TestWhatIsSaidWhileTheApplicationLooksIsObeyed(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		say  func(m *fob.Manager, s fob.Session) error
		want error
	}{
		"the session is revoked":  {func(m *fob.Manager, s fob.Session) error { _, err := m.Revoke(ctx, s.ID, ""); return err }, fob.ErrRevoked},
		"the session is disabled": {func(m *fob.Manager, s fob.Session) error { return m.Disable(ctx, s.ID, "") }, fob.ErrDisabled},
		"the subject is revoked":  {func(m *fob.Manager, s fob.Session) error { _, err := m.Revoke(ctx, s.Subject, ""); return err }, fob.ErrRevoked},
		"the account is disabled": {func(m *fob.Manager, s fob.Session) error { return m.Disable(ctx, s.Subject.Account, "") }, fob.ErrDisabled},
		"the key is disabled":     {func(m *fob.Manager, s fob.Session) error { return m.Disable(ctx, s.Parent, "") }, fob.ErrDisabled},
		"all tokens are disabled": {func(m *fob.Manager, _ fob.Session) error { return m.Disable(ctx, fob.AllTokens(time.Time{}), "") }, fob.ErrDisabled},
		"all tokens are revoked": {func(m *fob.Manager, _ fob.Session) error {
			_, err := m.Revoke(ctx, fob.AllTokens(time.Time{}), "")
			return err
		}, fob.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			clock := newClock()
			other := newManager(t, store, clocked(tokenConfig(), clock))
			m := newManager(t, store, clocked(asks(func(_ context.Context, r *fob.Renewal) error {
				require.NoError(t, c.say(other, r.Session))
				clock.Add(time.Minute)
				return nil
			}), clock))
			text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci").In("acme")})
			issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
			_, err := m.Refresh(ctx, issued.Refresh.Reveal())
			require.ErrorIs(t, err, c.want)
		})
	}
}

// The application that cannot tell is asked once, whatever its error looks like, and its
// error says nothing about the refresh.
func TestTheApplicationThatCannotTellIsAskedOnce(t *testing.T) {
	for _, says := range []error{fob.ErrConflict, fob.ErrNotFound, fob.ErrIndeterminate, fob.ErrUnknown, fob.ErrDisabled, context.DeadlineExceeded} {
		asked := 0
		m := newManager(t, nil, asks(func(context.Context, *fob.Renewal) error { asked++; return fmt.Errorf("directory: %w", says) }))
		issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		_, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
		mustBeUnsure(t, err)
		require.ErrorContains(t, err, "directory: ")
		require.NotErrorIs(t, err, fob.ErrIndeterminate, "nothing was written")
		require.Equal(t, 1, asked, says)
		require.Equal(t, fob.StatusActive, session(t, m, issued.Token.Session()).Status)
	}
}

// Two tabs refresh with one secret. The application is asked for each, and both get one pair.
func TestTheApplicationIsAskedOutsideOfLocks(t *testing.T) {
	var m *fob.Manager
	var issued, second fob.Issued
	asked := 0
	m = newManager(t, nil, asks(func(ctx context.Context, _ *fob.Renewal) (err error) {
		if asked++; asked == 1 {
			second, err = m.Refresh(ctx, issued.Refresh.Reveal())
		}
		return err
	}))
	issued = mustToken(t, m, fob.TokenSpec{Refreshable: true})
	first := mustRefresh(t, m, issued.Refresh)
	require.Equal(t, 2, asked)
	require.Equal(t, second.Refresh.Reveal(), first.Refresh.Reveal())
	require.Equal(t, second.Token.ID(), first.Token.ID())
}

// Whoever hangs up cannot keep a session that the application has ended, and no other
// process accepts what it gave out.
func TestASessionThatTheApplicationEndedIsOverEverywhere(t *testing.T) {
	store := memory.New()
	ctx, hangUp := context.WithCancel(t.Context())
	events := &observed{}
	cfg := asks(func(context.Context, *fob.Renewal) error { hangUp(); return fob.ErrRevoked })
	cfg.Observer = events
	m, other := newManager(t, store, cfg), newManager(t, store, tokenConfig())
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	events.take()
	_, err := m.Refresh(ctx, issued.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
	require.Equal(t, []fob.EventType{fob.EventRevoked}, events.types())
	mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
	_, err = other.Fresh().Verify(t.Context(), issued.Access.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
	_, err = other.Refresh(t.Context(), issued.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
}

// If the end of a session cannot be written, the client is not told that it is over, and
// gets nothing.
func TestASessionWhoseEndCannotBeWrittenIsNotSaidToBeOver(t *testing.T) {
	store := backendtest.NewFault(memory.New())
	m := newManager(t, store, asks(func(context.Context, *fob.Renewal) error { return fob.ErrRevoked }))
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	store.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	_, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
	mustBeUnsure(t, err)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	store.Inject(nil)
	_, err = m.Refresh(t.Context(), issued.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
}

// A lifetime that no token can have is no answer.
func TestTheApplicationCannotAskForNoLifetime(t *testing.T) {
	for _, ttl := range []time.Duration{-time.Hour, 0, time.Second - 1} {
		m := newManager(t, nil, asks(func(_ context.Context, r *fob.Renewal) error { r.TTL = ttl; return nil }))
		_, err := m.Refresh(t.Context(), mustToken(t, m, fob.TokenSpec{Refreshable: true}).Refresh.Reveal())
		mustBeUnsure(t, err)
	}
}

// The application may say what the user is allowed today, in its own words: the token gets
// what both that and the session allow.
func TestARefreshedTokenAllowsWhatTheSessionAndTheApplicationAllow(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(from []string, most int) (some []string) {
		for range random.IntN(most + 1) {
			if one := from[random.IntN(len(from))]; !slices.Contains(some, one) {
				some = append(some, one)
			}
		}
		return some
	}
	types, actions, names := []string{"orders", "users"}, []string{"read", "write", "*"}, []string{"1", "2", "*"}
	all := []string{"orders:read", "orders:write", "users:read", "orders:*", "orders:read:*", "orders:read:own", "*"}
	scopes := func(most int) (s fob.Scopes) {
		for _, one := range pick(all, most) {
			s = append(s, fob.Scope(one))
		}
		return s
	}
	grants := func(most int) (out fob.Grants) {
		for range random.IntN(most + 1) {
			g := fob.Grant{Type: types[random.IntN(2)], Actions: pick(actions, 2), Identifiers: pick(names, 2)}
			if len(g.Actions) > 0 && len(g.Identifiers) > 0 {
				out = append(out, g)
			}
		}
		return out
	}
	roles := fob.Roles{"clerk": {"orders:read", "users:read"}, "boss": {"orders:*"}, "none": {}}
	roleNames := []string{"clerk", "boss", "none"}
	// allowed is what somebody may do, by the words of a spec.
	type allowed struct {
		scopes fob.Scopes
		grants fob.Grants
	}
	of := func(s fob.Scopes, g fob.Grants, named []string) allowed {
		s = slices.Clone(s)
		for _, role := range named {
			s = append(s, roles[role]...)
		}
		return allowed{s, g}
	}
	allowsOn := func(a allowed, action string, r fob.Resource) bool {
		return a.scopes.Allow(fob.Scope(r.Type+":"+action)) || a.grants.Allow(action, r)
	}

	var answer fob.Renewal
	clock := newClock()
	cfg := clocked(asks(func(_ context.Context, r *fob.Renewal) error {
		*r = answer
		return nil
	}), clock)
	cfg.Roles = roles
	m := newManager(t, nil, cfg)
	less, none := 0, 0
	for range 1500 {
		spec := fob.TokenSpec{Subject: fob.User("ann"), Scopes: scopes(3), Grants: grants(2), Roles: pick(roleNames, 2), Refreshable: true, TTL: time.Duration(1+random.IntN(3600)) * time.Second}
		issued := mustToken(t, m, spec)
		answer = fob.Renewal{Scopes: scopes(3), Grants: grants(2), Roles: append(pick(roleNames, 2), "another"), TTL: time.Duration(1+random.IntN(3600)) * time.Second}
		next := mustRefresh(t, m, issued.Refresh)
		token := mustVerify(t, m, next.Access.Reveal()).(*fob.Token)
		require.Equal(t, min(spec.TTL, answer.TTL), token.ExpiresAt().Sub(token.NotBefore()))
		for _, role := range token.Roles() {
			require.True(t, slices.Contains(spec.Roles, role) && slices.Contains(answer.Roles, role))
		}
		// A role that the session does not have gives the answer nothing.
		kept := slices.DeleteFunc(slices.Clone(answer.Roles), func(role string) bool { return !slices.Contains(spec.Roles, role) })
		first, said := of(spec.Scopes, spec.Grants, spec.Roles), of(answer.Scopes, answer.Grants, kept)
		describe := func(what any) string {
			return fmt.Sprintf("seed %d: %v: session %+v %v, application %+v %v, token %v %+v %v", seed, what, first, spec.Roles, said, answer.Roles, token.Scopes(), token.Grants(), token.Roles())
		}
		for _, s := range append(slices.Clone(all), "other", "users:write") {
			s := fob.Scope(s)
			require.Equal(t, first.scopes.Allow(s) && said.scopes.Allow(s), token.Allows(s), describe(s))
		}
		for _, typ := range append(slices.Clone(types), "other") {
			for _, action := range append(slices.Clone(actions), "other") {
				for _, name := range append(slices.Clone(names), "other") {
					r := fob.Resource{Type: typ, ID: name}
					both := allowsOn(first, action, r) && allowsOn(said, action, r)
					has := token.AllowsOn(action, r)
					require.True(t, both || !has, describe(action+" on "+r.Type+" "+r.ID))
					if both && !has {
						less++ // see rights.MeetGrants
					}
					if !both && allowsOn(first, action, r) {
						none++
					}
				}
			}
		}
		// The next refresh begins from the session's own rights again.
		answer = fob.Renewal{Scopes: spec.Scopes, Grants: spec.Grants, Roles: spec.Roles, TTL: spec.TTL}
		clock.Add(time.Second)
		whole := mustRefresh(t, m, next.Refresh).Token
		require.Equal(t, issued.Token.Scopes(), whole.Scopes())
		require.Equal(t, issued.Token.Grants(), whole.Grants())
		require.Equal(t, issued.Token.Roles(), whole.Roles())
	}
	require.Greater(t, none, 1000)
	require.Less(t, less, none/10)
}

// A role that the token keeps is what the role is now, even if the application has spelled
// out its scopes.
func TestAScopeOfARoleStaysWithTheRole(t *testing.T) {
	store := memory.New()
	cfg := asks(func(_ context.Context, r *fob.Renewal) error {
		r.Scopes = fob.Scopes{"reports:read", "orders:read"} // all that ann may do, as it happens
		return nil
	})
	cfg.Roles = fob.Roles{"viewer": {"reports:read"}}
	m := newManager(t, store, cfg)
	issued := mustToken(t, m, fob.TokenSpec{Scopes: fob.Scopes{"orders:*"}, Roles: []string{"viewer"}, Refreshable: true})
	next := mustRefresh(t, m, issued.Refresh)
	require.Equal(t, fob.Scopes{"orders:read", "reports:read"}, next.Token.Scopes())

	cfg = tokenConfig()
	cfg.Roles = fob.Roles{"viewer": {"orders:list"}}
	later := newManager(t, store, cfg)
	require.Equal(t, fob.Scopes{"orders:read", "orders:list"}, mustVerify(t, later, next.Access.Reveal()).Scopes())
}

// Where others read the claims of a token alone, they read what is left.
func TestWhatTheApplicationTakesAwayIsNotInThePublicToken(t *testing.T) {
	cfg := asks(func(_ context.Context, r *fob.Renewal) error {
		if len(r.Scopes) != 2 {
			return errors.New("not the session's own")
		}
		r.Scopes = r.Scopes[:1]
		return nil
	})
	cfg.Tokens.Protocol = fob.V4Public
	m := newManager(t, nil, cfg)
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"orders:*", "users:read"}})
	issued := mustExchange(t, m, text, fob.TokenSpec{Scopes: fob.Scopes{"orders:*", "users:read"}, Refreshable: true})
	next := mustRefresh(t, m, issued.Refresh)
	require.Equal(t, fob.Scopes{"orders:*"}, next.Token.Scopes())
	_, err := m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{Scopes: &fob.Scopes{"orders:read", "users:read"}})
	require.NoError(t, err)
	next = mustRefresh(t, m, next.Refresh)
	require.Equal(t, fob.Scopes{"orders:read"}, next.Token.Scopes())
}
