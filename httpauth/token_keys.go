package httpauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/fobkit/fob"
)

// keysMaxAge is how long the list of public keys may be cached. It is below the
// default of fob.TokenConfig.KeyLead, so that a new key is known everywhere before
// it is used.
const keysMaxAge = 15 * time.Second

// keyList is what PublicKeys publishes.
type keyList struct {
	Keys []publicKey `json:"keys"`
}

type publicKey struct {
	ID       string     `json:"kid"`
	Public   string     `json:"paserk"`
	ActiveAt *time.Time `json:"active_at,omitempty"`
	RetireAt *time.Time `json:"retire_at,omitempty"`
}

// PublicKeys returns a handler that publishes the public token keys of source as
// JSON: an object with the list "keys" of "kid", "paserk" ("k4.public.…"),
// "active_at" and "retire_at" (RFC 3339). It answers GET and HEAD; the answer may be
// cached for 15 s by anybody. Keys of local protocols are secrets, and not in it: the
// list of an issuer that has no others is empty, and there is nothing to verify with
// it. A source that fails is 503.
func PublicKeys(source fob.TokenKeySource) (http.Handler, error) {
	if isNil(source) {
		return nil, fmt.Errorf("%w: no source of keys", fob.ErrInvalid)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		keys, err := source.TokenKeys(r.Context())
		if err != nil {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		list := keyList{Keys: []publicKey{}}
		for _, k := range keys {
			if k.Public != "" {
				list.Keys = append(list.Keys, publicKey{ID: k.ID, Public: k.Public, ActiveAt: timeOrNil(k.ActiveAt), RetireAt: timeOrNil(k.RetireAt)})
			}
		}
		body, err := json.Marshal(list)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(keysMaxAge.Seconds())))
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body) // a client that has gone
	}), nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
