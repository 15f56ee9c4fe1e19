package fob_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/stretchr/testify/require"
)

// What is exported is shown as a person expects it, and never as {}.
func TestWhatIsShownInJSON(t *testing.T) {
	clock := newClock()
	cfg := clocked(tokenConfig(), clock)
	cfg.Roles = fob.Roles{"clerk": {"orders:*"}}
	m := newManager(t, nil, cfg)
	of := fob.App("ci").In("acme")
	text, key := mustIssue(t, m, fob.KeySpec{
		Subject: of, Name: "deploys", Scopes: fob.Scopes{"users:read"}, Roles: []string{"clerk"}, Tags: []string{"prod"}, Meta: map[string]string{"cost centre": "4711"},
		Grants: fob.Grants{{Type: "project", Actions: []string{"read"}, Identifiers: []string{"7"}}}, TTL: time.Hour,
	})
	shown := func(v any) string {
		t.Helper()
		js, err := json.Marshal(v)
		require.NoError(t, err)
		return string(js)
	}
	want := `{"id":"` + key.ID().String() + `","kind":"key","subject":{"account":"acme","kind":"application","name":"ci"},"name":"deploys","prefix":"acme_live",` +
		`"status":"active","scopes":["users:read","orders:*"],"roles":["clerk"],"grants":[{"type":"project","actions":["read"],"identifiers":["7"]}],"tags":["prod"],` +
		`"issued_at":"2026-11-23T09:00:00Z","expires_at":"2026-11-23T10:00:00Z"}`
	require.JSONEq(t, want, shown(key))
	require.JSONEq(t, want, shown(*key))
	require.NotContains(t, shown(key), "4711", "metadata is not for clients")
	require.Equal(t, "null", shown(fob.Key{}))
	require.Equal(t, "null", shown(fob.Token{}))

	issued := mustExchange(t, m, text, fob.TokenSpec{Scopes: fob.Scopes{"users:read"}, Refreshable: true})
	require.Contains(t, shown(issued.Token), `"kind":"token"`)
	require.Contains(t, shown(issued.Token), `"session":"`+issued.Token.Session().String()+`"`)
	require.Contains(t, shown(issued), `"Access":"[redacted]"`)

	page, err := m.List(t.Context(), fob.Query{WithUsage: true})
	require.NoError(t, err)
	require.Contains(t, shown(page), `"usage":{"count":1,"last_used_at":"2026-11-23T09:00:00Z"}`)

	event := shown(fob.Event{Type: fob.EventRevoked, Target: fob.Account("acme"), Account: "acme", Err: errors.New("lost"), Idle: time.Hour, Actor: fob.Actor{Credential: key, Name: "ops"}})
	for _, part := range []string{`"type":"revoked"`, `"target":"acme"`, `"error":"lost"`, `"idle":"1h0m0s"`, `"actor":{"id":"` + key.ID().String() + `"`, `"name":"ops"`} {
		require.Contains(t, event, part)
	}
	require.Contains(t, shown(m.Health()), `"staleness":"2s"`)
	require.NotContains(t, shown(fob.Health{Err: errors.New("down"), Problems: []error{errors.New("bad")}}), "{}")
	require.Equal(t, `{"Status":"disabled","Kind":"token","Subject":"user"}`, shown(struct {
		Status  fob.Status
		Kind    fob.Kind
		Subject fob.SubjectKind
	}{fob.StatusDisabled, fob.KindToken, fob.SubjectUser}))

	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", key, "token", issued.Token, "subject", of)
	require.Contains(t, out.String(), "key.id="+key.ID().String()+" key.subject.kind=application key.subject.name=ci key.subject.account=acme key.name=deploys")
	require.Contains(t, out.String(), "token.id="+issued.Token.ID().String())
	require.NotContains(t, out.String(), "{}")
}
