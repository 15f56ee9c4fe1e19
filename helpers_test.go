package fob_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// testClock is a clock that a test moves by hand.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *testClock {
	return &testClock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *testClock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// observed collects events.
type observed struct {
	mu     sync.Mutex
	events []fob.Event
}

func (o *observed) Observe(_ context.Context, e fob.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

func (o *observed) types() []fob.EventType {
	o.mu.Lock()
	defer o.mu.Unlock()
	var types []fob.EventType
	for _, e := range o.events {
		types = append(types, e.Type)
	}
	return types
}

// take returns the events so far and forgets them.
func (o *observed) take() []fob.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.events
	o.events = nil
	return taken
}

// newManager makes a Manager over store (a new memory store if nil) that is
// closed with the test.
func newManager(t testing.TB, store backend.Store, cfg fob.Config) *fob.Manager {
	t.Helper()
	if store == nil {
		store = memory.New()
		t.Cleanup(func() { require.NoError(t, store.Close()) })
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "acme_live"
	}
	if cfg.SweepInterval == 0 {
		cfg.SweepInterval = -1 // tests call Sweep
	}
	m, err := fob.New(store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	// When the feed begins, what was revoked is read, and what was remembered before is
	// forgotten; and a Manager that is more patient than others tells them first.
	_, follows := backend.As[backend.Watcher](store)
	for range 1000 {
		if h := m.Health(); (h.FeedAge >= 0 || !follows) && !h.CatchingUp && h.Staleness >= cfg.MaxStaleness {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	return m
}

// bareManager makes a Manager over a store without capabilities, which does nothing by
// itself. Whoever makes it closes it.
func bareManager(t *testing.T, store backend.Store, cfg fob.Config) *fob.Manager {
	t.Helper()
	cfg.Prefix, cfg.SweepInterval = "acme_live", -1
	m, err := fob.New(bare{store}, cfg)
	require.NoError(t, err)
	return m
}

func mustIssue(t testing.TB, m *fob.Manager, spec fob.KeySpec) (string, *fob.Key) {
	t.Helper()
	if spec.Subject == (fob.Subject{}) {
		spec.Subject = fob.App("app-42")
	}
	secret, key, err := m.IssueKey(context.Background(), spec)
	require.NoError(t, err)
	return secret.Reveal(), key
}

func mustVerify(t testing.TB, m *fob.Manager, presented string) fob.Credential {
	t.Helper()
	cred, err := m.Verify(context.Background(), presented)
	require.NoError(t, err)
	require.NotNil(t, cred)
	return cred
}

func mustReject(t testing.TB, m *fob.Manager, presented string, reason error) {
	t.Helper()
	cred, err := m.Verify(context.Background(), presented)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, fob.ErrRejected)
	require.Nil(t, cred)
}

// mustBeUnsure asserts "could not check": an error, and no rejection.
func mustBeUnsure(t testing.TB, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, fob.ErrRejected, "a check that could not be made must not look like a rejection")
}

func idOf(c fob.Credential) backend.ID { return backend.ID(c.ID()) }

// relabel gives a key's text another prefix and the checksum that fits it, as
// its holder can.
func relabel(t testing.TB, text, prefix string) string {
	t.Helper()
	block := keytext.Block(text)
	return keytext.Format(prefix, [keytext.IDLen]byte(block[1:]), [keytext.SecretLen]byte(block[1+keytext.IDLen:]))
}

// forge makes a sound text for an ID that is known, with a secret that is not.
func forge(t testing.TB, prefix string, id fob.ID) string {
	t.Helper()
	return keytext.Format(prefix, id, keytext.NewSecret())
}

// revokeEverywhere returns when no process accepts the target any more.
func revokeEverywhere(ctx context.Context, m *fob.Manager, target fob.Target, reason fob.RevokeReason) (fob.Receipt, error) {
	receipt, err := m.Revoke(ctx, target, reason)
	if err != nil {
		return receipt, err
	}
	return receipt, receipt.Wait(ctx)
}
