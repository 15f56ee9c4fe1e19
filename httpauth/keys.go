package httpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fobkit/fob"
)

// keysMaxAge is how long the list of public keys may be cached. It is below the
// default of fob.TokenConfig.KeyLead, so that a new key is known everywhere before
// it is used.
const keysMaxAge = 15 * time.Second

// maxKeys bounds the list that a client reads, in bytes.
const maxKeys = 64 << 10

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
// cached for 15 s by anybody. Keys of local protocols are secrets, and not in it.
// A source that fails is 503.
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
				list.Keys = append(list.Keys, publicKey{ID: k.ID, Public: k.Public, ActiveAt: optional(k.ActiveAt), RetireAt: optional(k.RetireAt)})
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

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// KeyClient fetches what PublicKeys publishes. It implements fob.TokenKeySource,
// keeps nothing, and is safe for concurrent use.
type KeyClient struct {
	url    string
	client *http.Client
}

var _ fob.TokenKeySource = (*KeyClient)(nil)

// NewKeyClient makes a client of the address of a PublicKeys handler: https, or
// http on a loopback address. Whoever answers there decides which tokens are
// good. client is nil for one with a timeout of 5 s.
func NewKeyClient(address string, client *http.Client) (*KeyClient, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: address of the public keys", fob.ErrInvalid)
	}
	local := u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1"
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return nil, fmt.Errorf("%w: public keys over %q, want https", fob.ErrInvalid, u.Scheme)
	}
	if client == nil {
		client = &http.Client{Timeout: 5 * time.Second}
	}
	return &KeyClient{url: address, client: client}, nil
}

// TokenKeys implements fob.TokenKeySource.
func (c *KeyClient) TokenKeys(ctx context.Context) ([]fob.TokenKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeys+1))
	typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("httpauth: fetch keys: status %d", resp.StatusCode)
	case typ != "application/json":
		return nil, errors.New("httpauth: fetch keys: no JSON")
	case len(body) > maxKeys:
		return nil, fmt.Errorf("httpauth: fetch keys: more than %d bytes", maxKeys)
	}
	return parseKeys(body)
}

// parseKeys reads the list. A key whose ID is not its own is refused.
func parseKeys(body []byte) ([]fob.TokenKey, error) {
	var list keyList
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&list); err != nil {
		return nil, errors.New("httpauth: fetch keys: no list of keys")
	}
	keys := make([]fob.TokenKey, 0, len(list.Keys))
	for _, one := range list.Keys {
		if !strings.HasPrefix(one.Public, "k4.public.") && !strings.HasPrefix(one.Public, "k2.public.") {
			continue // of a protocol that this version does not know
		}
		k, err := fob.ParsePublicTokenKey(one.Public)
		if err != nil {
			return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
		}
		if k.ID != one.ID {
			return nil, errors.New("httpauth: fetch keys: a key under the name of another")
		}
		if one.ActiveAt != nil {
			k.ActiveAt = *one.ActiveAt
		}
		if one.RetireAt != nil {
			k.RetireAt = *one.RetireAt
		}
		keys = append(keys, k)
	}
	return keys, nil
}
