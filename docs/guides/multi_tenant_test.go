package guides_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

func openTenants(store backend.Store) (*fob.Manager, error) {
	return fob.New(store, fob.Config{
		Prefix: "acme_live",
		Roles: fob.Roles{
			"member": {"orders:read", "keys:own"},
			"admin":  {"orders:*", "keys:*"},
		},
		Tokens: &fob.TokenConfig{},
	})
}

func serviceAccount(ctx context.Context, keys *fob.Manager, tenant fob.Account) (fob.Secret, *fob.Key, error) {
	return keys.IssueKey(ctx, fob.KeySpec{
		Subject: fob.App("ci").In(tenant),
		Name:    "deploys",
		Roles:   []string{"member"},
	})
}

func ordersOfTheCaller(w http.ResponseWriter, r *http.Request) {
	cred, _ := fob.FromContext(r.Context())
	tenant := cred.Subject().Account // never from the path or the body
	fmt.Fprintf(w, "orders of %s", tenant)
}

// keysOf lists what a tenant has, a page at a time.
func keysOf(ctx context.Context, keys *fob.Manager, tenant fob.Account, from fob.Cursor) (fob.Page[*fob.Key], error) {
	if tenant == "" {
		return fob.Page[*fob.Key]{}, fob.ErrInvalid // a Query without an Account lists the keys of all
	}
	return keys.List(ctx, fob.Query{
		Account: tenant, Order: fob.NewestFirst, WithUsage: true, Cursor: from, Limit: 50,
	})
}

func unpaid(ctx context.Context, keys *fob.Manager, tenant fob.Account) error {
	return keys.Disable(ctx, tenant, "unpaid")
}

func paid(ctx context.Context, keys *fob.Manager, tenant fob.Account) error {
	return keys.Enable(ctx, tenant)
}

func left(ctx context.Context, keys *fob.Manager, tenant fob.Account) error {
	receipt, err := keys.Revoke(ctx, tenant, "left")
	if err != nil {
		return err
	}
	if receipt.Unknown {
		return fmt.Errorf("nothing is known of a tenant %q", tenant)
	}
	return receipt.Wait(ctx) // until it holds in every process
}

// In a bubble, because left waits for as long as another process could go on.
func TestATenant(t *testing.T) { synctest.Test(t, aTenant) }

func aTenant(t *testing.T) {
	keys, err := openTenants(memory.New())
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	guard, err := httpauth.Require(keys, httpauth.Options{Scopes: fob.Scopes{"orders:read"}})
	require.NoError(t, err)
	orders := guard(http.HandlerFunc(ordersOfTheCaller))
	secret, key, err := serviceAccount(t.Context(), keys, "acme")
	require.NoError(t, err)
	other, _, err := serviceAccount(t.Context(), keys, "other")
	require.NoError(t, err)
	status, text := call(t, orders, secret.Reveal(), "GET", "/", "")
	require.Equal(t, 200, status)
	require.Equal(t, "orders of acme", text)

	page, err := keysOf(t.Context(), keys, "acme", "")
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	require.Equal(t, key.ID(), page.Items[0].ID())
	_, err = keysOf(t.Context(), keys, "", "")
	require.ErrorIs(t, err, fob.ErrInvalid)

	require.NoError(t, unpaid(t.Context(), keys, "acme"))
	status, _ = call(t, orders, secret.Reveal(), "GET", "/", "")
	require.Equal(t, 401, status)
	require.NoError(t, paid(t.Context(), keys, "acme"))
	status, _ = call(t, orders, secret.Reveal(), "GET", "/", "")
	require.Equal(t, 200, status)

	require.NoError(t, left(t.Context(), keys, "acme"))
	require.Error(t, left(t.Context(), keys, "mistyped"))
	status, _ = call(t, orders, secret.Reveal(), "GET", "/", "")
	require.Equal(t, 401, status)
	status, _ = call(t, orders, other.Reveal(), "GET", "/", "")
	require.Equal(t, 200, status)
}
