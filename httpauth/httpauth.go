// Package httpauth protects net/http handlers with a fob.Verifier.
//
//	guard, err := httpauth.Require(manager, httpauth.Options{
//		Scopes: fob.Scopes{"orders:read"},
//	})
//	if err != nil {
//		return err // a guard that would not protect is never built
//	}
//	mux.Handle("GET /orders", guard(http.HandlerFunc(listOrders)))
//
//	func listOrders(w http.ResponseWriter, r *http.Request) {
//		cred, _ := fob.FromContext(r.Context())
//		fmt.Fprintln(w, "orders of", cred.Subject())
//	}
//
// # Where a credential stands
//
// A credential is read from "Authorization: Bearer …" (RFC 6750 §2.1) or from
// X-API-Key, never from the query string. It is up to 8 KiB of visible ASCII, which is
// all that a key made here, a token or an imported key may be. There is none where
// nothing is there, where Authorization is empty, or where it has another scheme: all
// three may stand beside a key in X-API-Key. Bearer with nothing after it, and an empty
// X-API-Key, are no well-formed request: whoever sends those means to send a
// credential, and has a variable that is not set, say.
//
// # The answers
//
//	400  the request is not well formed, or carries two credentials
//	401  no credential (a bare challenge), or a bad one (invalid_token)
//	403  a good one that lacks a scope (insufficient_scope)
//	503  it could not be checked: the store failed, say. Never 401: a client must
//	     not throw a good credential away, and never 200
//
// each with a challenge where RFC 6750 §3 asks for one and an RFC 9457 problem
// as its body. Nothing in them tells one bad credential from another, and
// nothing of the request is repeated. Options.Observe learns the reasons.
//
// # Browsers and other origins
//
// A browser asks before it sends a credential to another origin: the preflight of
// CORS, an OPTIONS request that carries none, so that a guard answers it with 401 and
// the browser gives up. CORS belongs outside of the guard: its middleware answers the
// preflight itself, and puts its headers on the guard's refusals too, without which a
// script cannot read them. It has to allow the header "Authorization" (a wildcard does
// not cover it) or "X-API-Key", and to add its "Origin" to Vary with Header.Add, as the
// guard adds what it depends on. The example of Require shows the order.
//
// # Other servers than net/http
//
// A guard refuses a header that is there twice, and relies on http.Request.Header to
// hold every line of the request, as net/http has it. An adaptor may not keep that:
// the one of fasthttp, on which Fiber's is built, has kept only the last of several
// lines in some of its releases, so that a proxy before it and the guard behind it can
// go by two different credentials. There, refuse the request before it is adapted:
//
//	for _, name := range []string{"Authorization", "X-API-Key"} {
//		if len(c.Request().Header.PeekAll(name)) > 1 {
//			return fiber.ErrBadRequest
//		}
//	}
package httpauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/internal/errs"
)

// Options is the settings of a guard. Scopes, Resource or AnyCredential must be set.
type Options struct {
	// Scopes are all required of a credential (RFC 6750 §3.1).
	Scopes fob.Scopes
	// Action and Resource, set together, ask for a right on the one thing that a
	// request is about: Credential.AllowsOn(Action, Resource(r)). Resource is called
	// for each request that has a good credential; a Resource without a type or an
	// identifier is allowed to nobody.
	Action   string
	Resource func(r *http.Request) fob.Resource
	// AnyCredential, set instead, is the explicit choice to let in every good
	// credential, whatever it grants.
	AnyCredential bool
	// Realm is named in challenges: printable ASCII without '"' and '\'. Default "api".
	Realm string
	// KeyHeader is the header for keys beside Authorization. Default "X-API-Key".
	KeyHeader string
	// Observe, if set, is called for each request that is refused, with the status
	// of the answer and the reason: for logs and metrics, of which [fob.Reason] has the
	// word. It must not block.
	Observe func(r *http.Request, status int, reason error)
}

// The reasons for 400 and for 401 without a credential, as Observe sees them.
var (
	// ErrNoCredential: the request carries none.
	ErrNoCredential = errs.New("no_credential", "httpauth: no credential")
	// ErrRequest: the request's credential is not well formed, or there are two.
	ErrRequest = errs.New("bad_request", "httpauth: malformed request")
)

// maxCredential bounds what is handed to the verifier, and maxSpaces what may stand
// between it and its scheme, in bytes.
const (
	maxCredential = 8 << 10
	maxSpaces     = 64
)

const defaultKeyHeader = "X-API-Key"

// guard is a built middleware.
type guard struct {
	verifier  fob.Verifier
	scopes    fob.Scopes
	action    string
	resource  func(*http.Request) fob.Resource // nil: none is asked for
	keyHeader string                           // canonical
	vary      string
	observe   func(*http.Request, int, error)

	// The challenges, built once.
	bare, badRequest, badCredential, lacksScope string
}

// Require builds a middleware that lets a request through when its credential
// is good and grants all that is asked for; the handler finds the credential with
// fob.FromContext. It fails if v is nil, if nothing is asked for without
// AnyCredential, or if an option cannot be sent in a header: when it is built,
// not at the first request. The middleware is safe for concurrent use.
//
// A request may in principle carry a key in X-API-Key and a token in
// Authorization, which say different things. A guard asks for one credential, so
// it refuses two.
func Require(v fob.Verifier, opts Options) (func(http.Handler) http.Handler, error) {
	if isNil(v) {
		return nil, errors.New("httpauth: no verifier")
	}
	// One by one: an empty scope, from a variable that is not set, say, would fall out
	// of their text, and take what was asked for along.
	for i, scope := range opts.Scopes {
		if one, err := fob.ParseScopes(string(scope)); err != nil || len(one) != 1 {
			return nil, fmt.Errorf("httpauth: Options.Scopes[%d]: %w: no scope", i, fob.ErrInvalid)
		}
	}
	scopes, err := fob.ParseScopes(opts.Scopes.String()) // each once
	if err != nil {
		return nil, fmt.Errorf("httpauth: %w", err)
	}
	if (opts.Action == "") != (opts.Resource == nil) {
		return nil, errors.New("httpauth: Options.Action and Resource go together")
	}
	if opts.AnyCredential == (len(opts.Scopes) > 0 || opts.Resource != nil) {
		return nil, errors.New("httpauth: want Options.Scopes or Resource, or AnyCredential where nothing is needed")
	}
	realm := opts.Realm
	if realm == "" {
		realm = "api"
	}
	if strings.ContainsFunc(realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return nil, errors.New(`httpauth: Options.Realm: want printable ASCII without '"' and '\'`)
	}
	header := opts.KeyHeader
	if header == "" {
		header = defaultKeyHeader
	}
	if !isToken(header) || strings.EqualFold(header, "Authorization") || strings.EqualFold(header, "Cookie") {
		return nil, errors.New("httpauth: Options.KeyHeader cannot carry keys")
	}
	challenge := fmt.Sprintf(`Bearer realm="%s"`, realm)
	g := &guard{
		verifier:      v,
		scopes:        scopes,
		action:        opts.Action,
		resource:      opts.Resource,
		keyHeader:     textproto.CanonicalMIMEHeaderKey(header),
		vary:          "Authorization, " + header,
		observe:       opts.Observe,
		bare:          challenge,
		badRequest:    challenge + `, error="invalid_request"`,
		badCredential: challenge + `, error="invalid_token"`,
		lacksScope:    challenge + `, error="insufficient_scope"`,
	}
	if len(scopes) > 0 { // never scope=""
		g.lacksScope += fmt.Sprintf(`, scope="%s"`, scopes)
	}
	return func(next http.Handler) http.Handler {
		if isNil(next) {
			panic("httpauth: nil handler") // as http.Handle does
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}, nil
}

func (g *guard) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// Whatever the answer is, it depends on these (RFC 9110 §12.5.5).
	w.Header().Add("Vary", g.vary)
	presented, byKeyHeader, err := g.credential(r.Header)
	if errors.Is(err, ErrNoCredential) {
		g.refuse(w, r, http.StatusUnauthorized, g.bare, "A credential is required.", err)
		return
	}
	if err != nil {
		g.refuse(w, r, http.StatusBadRequest, g.badRequest, "The credential in the request is not well formed.", err)
		return
	}
	cred, err := g.verifier.Verify(r.Context(), presented)
	switch {
	case errors.Is(err, fob.ErrRejected):
		g.refuse(w, r, http.StatusUnauthorized, g.badCredential, "The credential is not valid.", err)
		return
	case err != nil || isNil(cred):
		w.Header().Set("Retry-After", "1")
		g.refuse(w, r, http.StatusServiceUnavailable, "", "The credential could not be checked.", err)
		return
	}
	for _, scope := range g.scopes {
		if !cred.Allows(scope) {
			g.refuse(w, r, http.StatusForbidden, g.lacksScope, "The credential lacks a required scope.", fob.ErrScope)
			return
		}
	}
	if g.resource != nil && !cred.AllowsOn(g.action, g.resource(r)) {
		g.refuse(w, r, http.StatusForbidden, g.lacksScope, "The credential is not for this resource.", fob.ErrScope)
		return
	}
	if byKeyHeader {
		// Shared caches know that an answer to Authorization is not for everybody
		// (RFC 9111 §3.5), but not that one to a key header is.
		w.Header().Set("Cache-Control", "private")
	}
	next.ServeHTTP(w, r.WithContext(fob.NewContext(r.Context(), cred)))
}

// credential finds the one credential of a request.
func (g *guard) credential(h http.Header) (presented string, byKeyHeader bool, err error) {
	// All values: Header.Get would hide a second one.
	auth, keys := h["Authorization"], h[g.keyHeader]
	if len(auth) > 1 || len(keys) > 1 {
		return "", false, fmt.Errorf("%w: a header is repeated", ErrRequest)
	}
	bearer := false
	if len(auth) == 1 {
		if presented, bearer, err = parseAuthorization(auth[0]); err != nil {
			return "", false, err
		}
	}
	switch {
	case len(keys) == 0 && !bearer:
		return "", false, ErrNoCredential
	case len(keys) == 0:
		return presented, false, nil
	case bearer:
		return "", false, fmt.Errorf("%w: two credentials", ErrRequest)
	case !isVisible(keys[0]):
		return "", false, fmt.Errorf("%w: characters or length of the key header", ErrRequest)
	}
	return keys[0], true, nil
}

// parseAuthorization reads the value of an Authorization header. An empty one, and
// another scheme than Bearer, is no credential here, and no error. The scheme is
// compared without case, and one space or more follows it (RFC 9110 §11.4).
//
// The credential may be any visible ASCII. That is more than the token68 of RFC 9110
// §11.2 and RFC 6750: a key of another system goes on working as its clients send it,
// "42|abc" for one. It is not ambiguous. The header holds one credential (§11.6.2),
// so that a comma or a quote in it separates nothing.
//
// No more of value is looked at than a good one may have, however long it is.
func parseAuthorization(value string) (credential string, bearer bool, err error) {
	head := value[:min(len(value), maxCredential)]
	scheme, _, spaced := strings.Cut(head, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		switch {
		case len(value) <= maxCredential && strings.Trim(value, " \t") == "":
			return "", false, nil
		case !isToken(scheme) || !spaced && len(head) < len(value):
			return "", false, fmt.Errorf("%w: Authorization without a scheme", ErrRequest)
		}
		return "", false, nil
	}
	if len(value) > len("Bearer")+maxSpaces+maxCredential {
		return "", false, fmt.Errorf("%w: length of Authorization", ErrRequest)
	}
	credential = strings.TrimLeft(value[len(scheme):], " ")
	if !isVisible(credential) {
		return "", false, fmt.Errorf("%w: characters or length of the bearer credential", ErrRequest)
	}
	return credential, true, nil
}

// isVisible is what a credential may consist of: visible ASCII, bounded.
func isVisible(s string) bool {
	if s == "" || len(s) > maxCredential {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isToken is the syntax of a scheme or a header's name (RFC 9110 §5.6.2), bounded.
func isToken(s string) bool {
	if s == "" || len(s) > maxCredential {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return true
}

// refuse answers with a challenge and a problem (RFC 9457), neither of which
// has anything of the request in it.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, status int, challenge, detail string, reason error) {
	if g.observe != nil {
		g.observe(r, status, reason)
	}
	h := w.Header()
	if challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "{\"type\":\"about:blank\",\"title\":%q,\"status\":%d,\"detail\":%q}\n", http.StatusText(status), status, detail)
}

// isNil also sees a nil pointer or func inside an interface, which would panic
// at the first request.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch rv := reflect.ValueOf(v); rv.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Interface:
		return rv.IsNil()
	default:
		return false
	}
}
