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
	"unicode/utf8"

	"github.com/fobkit/fob"
)

// maxKeys bounds the list that a client reads, in bytes.
const maxKeys = 64 << 10

// maxHops is how many redirects a client follows.
const maxHops = 3

// KeyClient fetches what PublicKeys publishes. It implements fob.TokenKeySource,
// keeps nothing, and is safe for concurrent use.
type KeyClient struct {
	// Behind a pointer, because fmt prints what it finds in unexported fields, and stops
	// at the second pointer: the address may have a secret in its query.
	*keySite
}

type keySite struct {
	url    string
	client *http.Client
}

var _ fob.TokenKeySource = (*KeyClient)(nil)

// NewKeyClient makes a client of the address of a PublicKeys handler: https, or
// http on a loopback address, without user information. Whoever answers there
// decides which tokens are good, so that the same holds for each address that it
// redirects to, of which at most three are followed, and none from https to http.
//
// client is nil for one with a timeout of 5 s. It is copied, with its CheckRedirect,
// which may refuse more than this and never less.
func NewKeyClient(address string, client *http.Client) (*KeyClient, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%w: address of the public keys", fob.ErrInvalid)
	}
	if err := checkAddress(u); err != nil {
		return nil, err
	}
	own := http.Client{Timeout: 5 * time.Second}
	if client != nil {
		own = *client
	}
	callers := own.CheckRedirect
	own.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if err := checkAddress(next.URL); err != nil {
			return err
		}
		if via[len(via)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
			return errors.New("a redirect from https to http")
		}
		if len(via) > maxHops {
			return fmt.Errorf("more than %d redirects", maxHops)
		}
		if callers != nil {
			return callers(next, via)
		}
		return nil
	}
	return &KeyClient{&keySite{url: address, client: &own}}, nil
}

// checkAddress says whether keys may be fetched from u.
func checkAddress(u *url.URL) error {
	host := u.Hostname()
	if host == "" || u.User != nil {
		return fmt.Errorf("%w: address of the public keys", fob.ErrInvalid)
	}
	local := host == "localhost" || host == "127.0.0.1" || host == "::1"
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%w: public keys not over https", fob.ErrInvalid)
	}
	return nil
}

// String says that it is one, and no more.
func (c *KeyClient) String() string { return "client of public keys" }

// Format writes what String returns, for every verb.
func (c *KeyClient) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// TokenKeys implements fob.TokenKeySource. It fails for every answer that is not a
// list as PublicKeys writes it, whatever its status: one in which a member that this
// version reads is missing, null, of another type or there twice, or which names no
// key of a protocol that it knows. Members and protocols that it does not know are
// passed over. An empty list is an answer, that of an issuer without public keys.
func (c *KeyClient) TokenKeys(ctx context.Context) ([]fob.TokenKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	// What is sent is what is bounded: nothing is unpacked on the way.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.client.Do(req)
	if err != nil {
		if in := (*url.Error)(nil); errors.As(err, &in) {
			err = in.Err // without the address, which is the server's choice and may hold a password
		}
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeys+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("httpauth: fetch keys: status %d", resp.StatusCode)
	case !isJSON(resp.Header):
		return nil, errors.New("httpauth: fetch keys: no JSON")
	case len(body) > maxKeys:
		return nil, fmt.Errorf("httpauth: fetch keys: more than %d bytes", maxKeys)
	}
	keys, err := parseKeys(body)
	if err != nil {
		return nil, fmt.Errorf("httpauth: fetch keys: %w", err)
	}
	return keys, nil
}

// isJSON reports whether a header promises JSON, uncompressed, and nothing else.
func isJSON(h http.Header) bool {
	types := h["Content-Type"]
	if coding := h.Get("Content-Encoding"); len(types) != 1 || coding != "" && coding != "identity" {
		return false
	}
	typ, _, _ := mime.ParseMediaType(types[0])
	return typ == "application/json"
}

// errNoList: well formed or not, it is not what was asked for. Whoever takes such an
// answer for a list without keys throws away good ones.
var errNoList = errors.New("not a list of keys")

// parseKeys reads the list. A key whose ID is not its own is refused.
func parseKeys(body []byte) ([]fob.TokenKey, error) {
	if !utf8.Valid(body) {
		return nil, errNoList // encoding/json would mend it
	}
	list, err := readMembers(body, "keys")
	if err != nil {
		return nil, err
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(list["keys"], &entries); err != nil || entries == nil {
		return nil, errNoList
	}
	keys := make([]fob.TokenKey, 0, len(entries))
	seen := make(map[string]bool, len(entries))
	for _, entry := range entries {
		k, known, err := parseKey(entry)
		if err != nil {
			return nil, err
		}
		if seen[k.ID] {
			return nil, errNoList
		}
		seen[k.ID] = true
		if known {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 && len(entries) > 0 {
		return nil, errors.New("no key of a protocol that is known here")
	}
	return keys, nil
}

// parseKey reads an entry of the list. It is not known if it is of a protocol that
// this version has never heard of.
func parseKey(entry json.RawMessage) (k fob.TokenKey, known bool, err error) {
	fields, err := readMembers(entry, "kid", "paserk", "active_at", "retire_at")
	if err != nil {
		return k, false, err
	}
	id, public := stringOf(fields["kid"]), stringOf(fields["paserk"])
	version, purpose, _ := strings.Cut(public, ".")
	purpose, _, found := strings.Cut(purpose, ".")
	if id == "" || len(version) < 2 || version[0] != 'k' || purpose != "public" || !found {
		return k, false, errNoList
	}
	if version != "k4" && version != "k2" {
		return fob.TokenKey{ID: id}, false, nil
	}
	if k, err = fob.ParsePublicTokenKey(public); err != nil {
		return k, false, err
	}
	if k.ID != id {
		return k, false, errors.New("a key under the name of another")
	}
	for name, at := range map[string]*time.Time{"active_at": &k.ActiveAt, "retire_at": &k.RetireAt} {
		if value, ok := fields[name]; ok {
			if *at, err = time.Parse(time.RFC3339, stringOf(value)); err != nil {
				return k, false, errNoList
			}
		}
	}
	return k, true, nil
}

// stringOf is the string that a value is, "" if it is none.
func stringOf(value json.RawMessage) string {
	var s *string
	if json.Unmarshal(value, &s) != nil || s == nil {
		return ""
	}
	return *s
}

// readMembers reads an object and nothing after it. The names that are known may occur
// once each and in their own case: encoding/json takes the last, and any case, so
// that two readers could read two things.
func readMembers(object []byte, known ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errNoList
	}
	found := make(map[string]json.RawMessage, len(known))
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errNoList
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errNoList
		}
		for _, k := range known {
			if !strings.EqualFold(k, name.(string)) {
				continue
			}
			if _, twice := found[k]; twice || k != name {
				return nil, errNoList
			}
			found[k] = value
		}
	}
	if end, err := d.Token(); err != nil || end != json.Delim('}') {
		return nil, errNoList
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoList
	}
	return found, nil
}
