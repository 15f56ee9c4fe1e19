package guides_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/httpauth"
	"github.com/stretchr/testify/require"
)

// keysAPI lets callers make and end keys of their own.
type keysAPI struct{ keys *fob.Manager }

func (a keysAPI) routes() (http.Handler, error) {
	guard, err := httpauth.Require(a.keys, httpauth.Options{Scopes: fob.Scopes{"keys:own"}})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /keys", a.create)
	mux.HandleFunc("DELETE /keys/{id}", a.revoke)
	return guard(mux), nil
}

func (a keysAPI) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name   string
		Scopes fob.Scopes
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&in); err != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	caller, _ := fob.FromContext(r.Context())
	secret, key, err := a.keys.IssueKey(r.Context(), fob.KeySpec{
		Subject: caller.Subject(),
		Name:    in.Name,
		Scopes:  in.Scopes,
		TTL:     90 * 24 * time.Hour,
		Within:  caller, // refuses what the caller does not have
		Outlast: true,   // the caller's login ends in minutes, and the key stays
	})
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"secret": secret.Reveal(), "key": key})
}

func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, fob.ErrScope):
		http.Error(w, "you cannot give what you do not have", http.StatusForbidden)
	case errors.Is(err, fob.ErrInvalid):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, fob.ErrNotFound):
		http.Error(w, "no such key", http.StatusNotFound)
	default: // it could not be done, or perhaps only in part
		http.Error(w, "try again", http.StatusServiceUnavailable)
	}
}

func (a keysAPI) revoke(w http.ResponseWriter, r *http.Request) {
	caller, _ := fob.FromContext(r.Context())
	id, err := fob.ParseID(r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	key, err := a.keys.Get(r.Context(), id)
	if err == nil && key.Subject() != caller.Subject() {
		err = fob.ErrNotFound // somebody else's key does not exist for the caller
	}
	if err == nil {
		_, err = a.keys.Revoke(r.Context(), id, "by its owner")
	}
	if err != nil {
		refuse(w, err)
	}
}

func TestSelfServiceKeys(t *testing.T) {
	keys, err := openTenants(memory.New())
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	api, err := keysAPI{keys}.routes()
	require.NoError(t, err)
	login := func(who fob.Subject) string {
		issued, err := keys.IssueToken(t.Context(), fob.TokenSpec{Subject: who, Roles: []string{"member"}})
		require.NoError(t, err)
		return issued.Access.Reveal()
	}
	ann, bob := login(fob.User("ann").In("acme")), login(fob.User("bob").In("acme"))
	status, text := call(t, api, ann, "POST", "/keys", `{"name":"export","scopes":["orders:read"]}`)
	require.Equal(t, 200, status, text)
	var made struct {
		Secret string
		Key    struct{ ID fob.ID }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &made))
	cred, err := keys.Verify(t.Context(), made.Secret)
	require.NoError(t, err)
	require.Equal(t, fob.User("ann").In("acme"), cred.Subject())

	for body, want := range map[string]int{`{"scopes":["orders:write"]}`: 403, `{"scopes":["*"]}`: 403, `{"scopes":["a b"]}`: 400, `{`: 400} {
		status, _ = call(t, api, ann, "POST", "/keys", body)
		require.Equal(t, want, status, body)
	}
	id := made.Key.ID.String()
	status, _ = call(t, api, bob, "DELETE", "/keys/"+id, "")
	require.Equal(t, 404, status)
	status, _ = call(t, api, ann, "DELETE", "/keys/"+id, "")
	require.Equal(t, 200, status)
	_, err = keys.Verify(t.Context(), made.Secret)
	require.ErrorIs(t, err, fob.ErrRevoked)
}
