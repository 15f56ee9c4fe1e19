package peers_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/store"
	"github.com/ory/fosite"
	foauth2 "github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/hmac"
	"github.com/stretchr/testify/require"
)

// opaque are the peers that look a random text up in memory.
func opaque(tb testing.TB, n int) []*peer {
	tb.Helper()
	own, _ := issueKeys(tb, n).fob(tb, 1)
	return []*peer{own, newFosite(tb, n), newGoOAuth2(tb, n)}
}

// newFosite is an authorization server whose access tokens are sealed with an
// HMAC and kept in its store.
func newFosite(tb testing.TB, n int) *peer {
	tb.Helper()
	ctx := tb.Context()
	cfg := &fosite.Config{GlobalSecret: random(32), AccessTokenLifespan: time.Hour}
	strategy := foauth2.NewHMACSHAStrategy(&hmac.HMACStrategy{Config: cfg}, cfg)
	kept := storage.NewMemoryStore()
	cfg.TokenIntrospectionHandlers = fosite.TokenIntrospectionHandlers{
		&foauth2.CoreValidator{CoreStrategy: strategy, CoreStorage: kept, Config: cfg},
	}
	server := fosite.NewOAuth2Provider(kept, cfg)
	issued := 0
	issue := func(audience string, expires time.Time) string {
		issued++
		session := &fosite.DefaultSession{Subject: subject(issued - 1)}
		session.SetExpiresAt(fosite.AccessToken, expires)
		request := &fosite.Request{
			ID: strconv.Itoa(issued), RequestedAt: time.Now().UTC(), Client: &fosite.DefaultClient{ID: "app"}, Session: session,
			GrantedScope: fosite.Arguments{"orders:read", "orders:list"}, GrantedAudience: fosite.Arguments{audience},
		}
		text, signature, err := strategy.GenerateAccessToken(ctx, request)
		require.NoError(tb, err)
		require.NoError(tb, kept.CreateAccessTokenSession(ctx, signature, request))
		return text
	}
	soon := time.Now().Add(time.Hour)
	p := &peer{name: "fosite", texts: make([]string, n)}
	for i := range p.texts {
		p.texts[i] = issue(audience, soon)
	}
	p.bad = map[string]string{
		"changed":              changed(p.texts[0]),
		"for another audience": issue("billing", soon),
		"expired":              issue(audience, time.Now().Add(-time.Hour)),
	}
	p.check = func(ctx context.Context, text string) (string, error) {
		use, request, err := server.IntrospectToken(ctx, text, fosite.AccessToken, &fosite.DefaultSession{})
		if err != nil {
			return "", err
		}
		if use != fosite.AccessToken || !request.GetGrantedAudience().Has(audience) {
			return "", errRefused
		}
		return request.GetSession().GetSubject(), nil
	}
	return p
}

// newGoOAuth2 is one whose access tokens are random and kept in its store.
func newGoOAuth2(tb testing.TB, n int) *peer {
	tb.Helper()
	clients := store.NewClientStore()
	require.NoError(tb, clients.Set("app", &models.Client{ID: "app", Secret: "unused here"}))
	server := manage.NewDefaultManager()
	server.MapClientStorage(clients)
	server.MustTokenStorage(store.NewMemoryTokenStore())
	issue := func(subject string, ttl time.Duration) string {
		info, err := server.GenerateAccessToken(tb.Context(), oauth2.ClientCredentials, &oauth2.TokenGenerateRequest{
			ClientID: "app", ClientSecret: "unused here", UserID: subject, Scope: "orders:read orders:list", AccessTokenExp: ttl,
		})
		require.NoError(tb, err)
		return info.GetAccess()
	}
	p := &peer{name: "go-oauth2", texts: make([]string, n)}
	for i := range p.texts {
		p.texts[i] = issue(subject(i), time.Hour)
	}
	p.bad = map[string]string{
		"changed": changed(p.texts[0]),
		"expired": issue(subject(0), time.Nanosecond),
	}
	p.check = func(ctx context.Context, text string) (string, error) {
		info, err := server.LoadAccessToken(ctx, text)
		if err != nil {
			return "", err
		}
		return info.GetUserID(), nil
	}
	return p
}
