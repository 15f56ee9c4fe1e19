package guides_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// people stands for your users: the role of each who may still log in.
type people map[string]string

func openSessions(store backend.Store, seal []byte, users people) (*fob.Manager, error) {
	return fob.New(store, fob.Config{
		Prefix: "acme_live",
		Roles:  fob.Roles{"member": {"orders:read"}, "admin": {"orders:*"}},
		Tokens: &fob.TokenConfig{
			SealKey: seal, // 32 bytes, the same in every process; not kept in the store
			TTL:     5 * time.Minute,
			OnRefresh: func(_ context.Context, r *fob.Renewal) error {
				if _, ok := users[r.Session.Subject.Name]; !ok {
					return fob.ErrRevoked // who has left is logged out
				}
				return nil
			},
		},
	})
}

// logIn is called when the password was right.
func logIn(ctx context.Context, keys *fob.Manager, who fob.Subject, role, device string) (fob.Issued, error) {
	return keys.IssueToken(ctx, fob.TokenSpec{
		Subject:     who,
		Roles:       []string{role},
		Refreshable: true,
		Label:       device,
	})
}

func logOut(ctx context.Context, keys *fob.Manager, caller *fob.Token) error {
	_, err := keys.Revoke(ctx, caller.Session(), "logged out")
	return err
}

// logOutElsewhere ends every session of the caller but the caller's own.
func logOutElsewhere(ctx context.Context, keys *fob.Manager, caller *fob.Token) error {
	for ended := true; ended; { // once more, for a session that began meanwhile
		ended = false
		q := fob.Query{Subject: caller.Subject(), Status: fob.StatusActive}
		for more := true; more; more = q.Cursor != "" {
			page, err := keys.Sessions(ctx, q)
			if err != nil {
				return err
			}
			for _, session := range page.Items {
				if session.ID == caller.Session() {
					continue
				}
				if _, err := keys.Revoke(ctx, session.ID, "logged out elsewhere"); err != nil {
					return err
				}
				ended = true
			}
			q.Cursor = page.Next
		}
	}
	return nil
}

func TestASession(t *testing.T) {
	users := people{"ann": "member"}
	seal := make([]byte, 32)
	_, err := rand.Read(seal)
	require.NoError(t, err)
	keys, err := openSessions(memory.New(), seal, users)
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	ann := fob.User("ann").In("acme")
	laptop, err := logIn(t.Context(), keys, ann, users["ann"], "laptop")
	require.NoError(t, err)
	phone, err := logIn(t.Context(), keys, ann, users["ann"], "phone")
	require.NoError(t, err)
	require.NoError(t, logOutElsewhere(t.Context(), keys, laptop.Token))
	_, err = keys.Verify(t.Context(), phone.Access.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
	_, err = keys.Verify(t.Context(), laptop.Access.Reveal())
	require.NoError(t, err)

	next, err := keys.Refresh(t.Context(), laptop.Refresh.Reveal())
	require.NoError(t, err)
	require.True(t, next.Token.Allows("orders:read"))
	require.NoError(t, logOut(t.Context(), keys, next.Token))
	_, err = keys.Refresh(t.Context(), next.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)

	again, err := logIn(t.Context(), keys, ann, users["ann"], "laptop")
	require.NoError(t, err)
	delete(users, "ann")
	_, err = keys.Refresh(t.Context(), again.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
}
