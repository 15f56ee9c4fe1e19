package fob_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// sessionsOf walks a query to its end, two sessions at a time, and returns the labels.
func sessionsOf(t *testing.T, m *fob.Manager, q fob.Query) (labels []string) {
	t.Helper()
	for q.Limit = 2; ; {
		page, err := m.Sessions(t.Context(), q)
		require.NoError(t, err)
		for _, s := range page.Items {
			labels = append(labels, s.Label)
		}
		if q.Cursor = page.Next; page.Next == "" {
			return labels
		}
	}
}

// session is what is known of one session.
func session(t *testing.T, m *fob.Manager, id fob.ID) fob.Session {
	t.Helper()
	page, err := m.Sessions(t.Context(), fob.Query{})
	require.NoError(t, err)
	for _, s := range page.Items {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("no session %s", id)
	return fob.Session{}
}

func TestSessionsAreListedBySubjectAccountAndKey(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	ann, bob := fob.User("ann").In("acme"), fob.User("bob").In("acme")
	begin := func(of fob.Subject, label string) fob.Issued {
		clock.Add(time.Second)
		return mustToken(t, m, fob.TokenSpec{Subject: of, Refreshable: true, Label: label})
	}
	first := begin(ann, "laptop")
	begin(bob, "phone")
	begin(ann, "tablet")
	begin(fob.User("ann"), "elsewhere")
	text, key := mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci").In("acme"), TTL: time.Hour})
	clock.Add(time.Second)
	mustExchange(t, m, text, fob.TokenSpec{Refreshable: true, Label: "runner"})
	mustToken(t, m, fob.TokenSpec{Subject: ann}) // no session

	require.Equal(t, []string{"laptop", "tablet"}, sessionsOf(t, m, fob.Query{Subject: ann}))
	require.Equal(t, []string{"elsewhere"}, sessionsOf(t, m, fob.Query{Subject: fob.User("ann")}))
	require.Equal(t, []string{"laptop", "phone", "tablet", "runner"}, sessionsOf(t, m, fob.Query{Account: "acme"}))
	require.Equal(t, []string{"runner", "tablet", "phone", "laptop"}, sessionsOf(t, m, fob.Query{Account: "acme", Order: fob.NewestFirst}))
	require.Equal(t, []string{"runner"}, sessionsOf(t, m, fob.Query{Parent: key.ID()}))
	require.Equal(t, []string{"laptop", "phone", "tablet", "elsewhere", "runner"}, sessionsOf(t, m, fob.Query{}))

	clock.Add(time.Minute)
	refreshed := clock.Now()
	_, err := m.Refresh(t.Context(), first.Refresh.Reveal())
	require.NoError(t, err)
	got := session(t, m, first.Token.Session())
	require.Equal(t, refreshed, got.RefreshedAt)
	require.Equal(t, refreshed.Add(7*24*time.Hour), got.EndsAt, "unless it is refreshed again")
	require.Equal(t, fob.StatusActive, got.Status)
	require.Equal(t, ann, got.Subject)
	page, err := m.Sessions(t.Context(), fob.Query{Parent: key.ID()})
	require.NoError(t, err)
	require.Equal(t, key.ExpiresAt(), page.Items[0].EndsAt)
	require.Equal(t, key.ID(), page.Items[0].Parent)

	js, err := json.Marshal(got)
	require.NoError(t, err)
	require.Contains(t, string(js), `"subject":{"account":"acme","kind":"user","name":"ann"}`)
	require.Contains(t, string(js), `"status":"active"`)
	require.Equal(t, "session "+got.ID.String(), fmt.Sprint(got))
}

// Whatever is said about what a session hangs from, its status says it.
func TestTheStatusOfASessionIsThatOfARefresh(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		change func(m *fob.Manager, i fob.Issued) error
		want   error
		status fob.Status
	}{
		"nothing":                 {func(*fob.Manager, fob.Issued) error { return nil }, nil, fob.StatusActive},
		"it was revoked":          {func(m *fob.Manager, i fob.Issued) error { _, err := m.Revoke(ctx, i.Token.Session(), ""); return err }, fob.ErrRevoked, fob.StatusRevoked},
		"its key was revoked":     {func(m *fob.Manager, i fob.Issued) error { _, err := m.Revoke(ctx, i.Token.Parent(), ""); return err }, fob.ErrRevoked, fob.StatusRevoked},
		"its subject was revoked": {func(m *fob.Manager, i fob.Issued) error { _, err := m.Revoke(ctx, i.Token.Subject(), ""); return err }, fob.ErrRevoked, fob.StatusRevoked},
		"its account was revoked": {func(m *fob.Manager, _ fob.Issued) error { _, err := m.Revoke(ctx, fob.Account("acme"), ""); return err }, fob.ErrRevoked, fob.StatusRevoked},
		"all tokens were revoked": {func(m *fob.Manager, _ fob.Issued) error {
			_, err := m.Revoke(ctx, fob.AllTokens(time.Time{}), "")
			return err
		}, fob.ErrRevoked, fob.StatusRevoked},
		"it is disabled":          {func(m *fob.Manager, i fob.Issued) error { return m.Disable(ctx, i.Token.Session(), "") }, fob.ErrDisabled, fob.StatusDisabled},
		"its key is disabled":     {func(m *fob.Manager, i fob.Issued) error { return m.Disable(ctx, i.Token.Parent(), "") }, fob.ErrDisabled, fob.StatusDisabled},
		"its subject is disabled": {func(m *fob.Manager, i fob.Issued) error { return m.Disable(ctx, i.Token.Subject(), "") }, fob.ErrDisabled, fob.StatusDisabled},
		"its account is disabled": {func(m *fob.Manager, _ fob.Issued) error { return m.Disable(ctx, fob.Account("acme"), "") }, fob.ErrDisabled, fob.StatusDisabled},
		"all tokens are disabled": {func(m *fob.Manager, _ fob.Issued) error { return m.Disable(ctx, fob.AllTokens(time.Time{}), "") }, fob.ErrDisabled, fob.StatusDisabled},
		"it was disabled and enabled": {func(m *fob.Manager, i fob.Issued) error {
			return errors.Join(m.Disable(ctx, i.Token.Session(), ""), m.Enable(ctx, i.Token.Session()))
		}, nil, fob.StatusActive},
		"its account was disabled and enabled": {func(m *fob.Manager, _ fob.Issued) error {
			return errors.Join(m.Disable(ctx, fob.Account("acme"), ""), m.Enable(ctx, fob.Account("acme")))
		}, nil, fob.StatusActive},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			m, other := newManager(t, store, tokenConfig()), newManager(t, store, tokenConfig())
			text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.App("ci").In("acme")})
			issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
			require.NoError(t, c.change(other, issued))
			require.Equal(t, c.status, session(t, m, issued.Token.Session()).Status)
			page, err := m.Sessions(ctx, fob.Query{Status: c.status})
			require.NoError(t, err)
			require.Len(t, page.Items, 1)
			_, err = m.Refresh(ctx, issued.Refresh.Reveal())
			_, fresh := other.Fresh().Verify(ctx, issued.Access.Reveal())
			if c.want == nil {
				require.NoError(t, err)
				require.NoError(t, fresh)
				return
			}
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, fresh, c.want)
		})
	}
}

func TestAQueryForKeysListsNoSessions(t *testing.T) {
	m := newManager(t, nil, tokenConfig())
	for _, q := range []fob.Query{{Tag: "a"}, {Role: "a"}, {WithUsage: true}, {Order: fob.LastUsedFirst}, {ExpiringWithin: 1}, {UnusedSince: time.Now()}, {Limit: -1}, {Cursor: "x"}} {
		_, err := m.Sessions(t.Context(), q)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
	_, err := newManager(t, nil, fob.Config{}).Sessions(t.Context(), fob.Query{})
	require.ErrorIs(t, err, fob.ErrInvalid)
	_, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), Label: "no session"})
	require.ErrorIs(t, err, fob.ErrInvalid)
}

// The application looks again at each refresh: it may narrow the token, end the session, or
// be unable to tell. It cannot widen anything.
func TestTheApplicationIsAskedAtEachRefresh(t *testing.T) {
	var ask func(context.Context, *fob.Renewal) error
	cfg := tokenConfig()
	cfg.Roles = fob.Roles{"viewer": {"reports:read"}, "admin": {"admin:*"}}
	cfg.Tokens.OnRefresh = func(ctx context.Context, r *fob.Renewal) error { return ask(ctx, r) }
	m := newManager(t, nil, cfg)
	spec := fob.TokenSpec{
		Subject: fob.User("ann").In("acme"), Refreshable: true, Label: "laptop", TTL: 10 * time.Minute,
		Scopes: fob.Scopes{"orders:*", "users:read"}, Roles: []string{"viewer"},
		Grants: fob.Grants{{Type: "project", Actions: []string{"read", "write"}, Identifiers: []string{"7"}}},
	}
	issued := mustToken(t, m, spec)
	secret := issued.Refresh.Reveal()
	refresh := func() (*fob.Token, error) {
		next, err := m.Refresh(t.Context(), secret)
		if err != nil {
			return nil, err
		}
		secret = next.Refresh.Reveal()
		require.Equal(t, mustVerify(t, m, next.Access.Reveal()).Scopes(), next.Token.Scopes())
		return next.Token, nil
	}

	// It is told what there is.
	ask = func(_ context.Context, r *fob.Renewal) error {
		require.Equal(t, spec.Scopes, r.Scopes)
		require.Equal(t, spec.Grants, r.Grants)
		require.Equal(t, spec.Roles, r.Roles)
		require.Equal(t, spec.TTL, r.TTL)
		require.Equal(t, issued.Token.Session(), r.Session.ID)
		require.Equal(t, "laptop", r.Session.Label)
		return nil
	}
	got, err := refresh()
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"orders:*", "users:read", "reports:read"}, got.Scopes())

	// It narrows this token.
	ask = func(_ context.Context, r *fob.Renewal) error {
		r.Scopes, r.Roles, r.TTL = fob.Scopes{"orders:read"}, nil, time.Minute
		r.Grants[0].Actions = []string{"read"}
		return nil
	}
	got, err = refresh()
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"orders:read"}, got.Scopes())
	require.True(t, got.AllowsOn("read", fob.Resource{Type: "project", ID: "7"}))
	require.False(t, got.AllowsOn("write", fob.Resource{Type: "project", ID: "7"}))
	require.Equal(t, time.Minute, got.ExpiresAt().Sub(got.NotBefore()))

	// What it adds is left out.
	ask = func(_ context.Context, r *fob.Renewal) error {
		r.Scopes = append(r.Scopes, fob.ScopeAll, "users:*", "users:write")
		r.Roles = append(r.Roles, "admin")
		r.Grants = append(r.Grants, fob.Grant{Type: "project", Actions: []string{"read"}, Identifiers: []string{fob.Any}})
		r.TTL = time.Hour
		return nil
	}
	got, err = refresh()
	require.NoError(t, err)
	require.Equal(t, fob.Scopes{"orders:*", "users:read", "reports:read"}, got.Scopes())
	require.Equal(t, spec.Grants, got.Grants())
	require.Equal(t, spec.TTL, got.ExpiresAt().Sub(got.NotBefore()))

	// What it cannot tell costs nothing: the secret can be used again.
	for _, fault := range []func(context.Context, *fob.Renewal) error{
		func(context.Context, *fob.Renewal) error { return errors.New("the directory is down") },
		func(context.Context, *fob.Renewal) error { return fob.ErrExpired },
		func(context.Context, *fob.Renewal) error { panic("oh") },
		func(_ context.Context, r *fob.Renewal) error { r.Scopes = fob.Scopes{"a b"}; return nil },
	} {
		ask = fault
		_, err = refresh()
		mustBeUnsure(t, err)
	}
	ask = func(context.Context, *fob.Renewal) error { return nil }
	last, err := refresh()
	require.NoError(t, err)

	// It ends the session.
	ask = func(context.Context, *fob.Renewal) error { return fmt.Errorf("ann has left: %w", fob.ErrRevoked) }
	_, err = refresh()
	require.ErrorIs(t, err, fob.ErrRevoked)
	require.Equal(t, fob.StatusRevoked, session(t, m, last.Session()).Status)
	ask = nil
	_, err = refresh()
	require.ErrorIs(t, err, fob.ErrRevoked)
}
