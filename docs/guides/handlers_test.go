package guides_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// newService is your service: it is given a Manager, and makes its routes with it.
func newService(keys *fob.Manager) (http.Handler, error) {
	guard, err := httpauth.Require(keys, httpauth.Options{Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		return nil, err
	}
	return guard(http.HandlerFunc(ordersOfTheCaller)), nil
}

func testKeys(t *testing.T, store backend.Store, clock func() time.Time) *fob.Manager {
	t.Helper()
	keys, err := fob.New(store, fob.Config{Prefix: "acme_test", Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	return keys
}

func TestOrdersNeedAKey(t *testing.T) {
	keys := testKeys(t, memory.New(), nil)
	service, err := newService(keys)
	require.NoError(t, err)

	may, _, err := keys.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("ci").In("acme"), Scopes: fob.Scopes{"orders:read"}})
	require.NoError(t, err)
	mayNot, _, err := keys.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("ci").In("acme")})
	require.NoError(t, err)
	for credential, want := range map[string]int{"": 401, "acme_test_1x": 401, mayNot.Reveal(): 403, may.Reveal(): 200} {
		status, _ := call(t, service, credential, "GET", "/orders", "")
		require.Equal(t, want, status)
	}
}

func TestAKeyThatExpires(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := testKeys(t, memory.New(), func() time.Time { return now })
	secret, _, err := keys.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("ci"), TTL: time.Hour})
	require.NoError(t, err)
	now = now.Add(time.Hour)
	_, err = keys.Verify(t.Context(), secret.Reveal())
	require.ErrorIs(t, err, fob.ErrExpired)
}

func TestTheStoreIsDown(t *testing.T) {
	store := backendtest.NewFault(memory.New())
	keys := testKeys(t, store, nil)
	service, err := newService(keys)
	require.NoError(t, err)
	secret, _, err := keys.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("ci"), Scopes: fob.Scopes{"orders:read"}})
	require.NoError(t, err)
	store.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	defer store.Inject(nil)
	status, _ := call(t, service, secret.Reveal(), "GET", "/orders", "")
	require.Equal(t, 503, status, "not 401: the client is not told that its key is bad")
}

func TestAHandlerByItself(t *testing.T) {
	keys := testKeys(t, memory.New(), nil)
	_, key, err := keys.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("ci").In("acme")})
	require.NoError(t, err)
	r := httptest.NewRequestWithContext(fob.NewContext(t.Context(), key), "GET", "/orders", http.NoBody)
	w := httptest.NewRecorder()
	ordersOfTheCaller(w, r)
	require.Equal(t, "orders of acme", w.Body.String())
}
