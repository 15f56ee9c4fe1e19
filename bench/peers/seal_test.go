package peers_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	paseto "aidanwoods.dev/go-paseto"
	"github.com/golang-jwt/jwt/v5"
	pasetov2 "github.com/o1egl/paseto/v2"
	"github.com/stretchr/testify/require"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// verifying is a check as Kubernetes wants it, counted.
type verifying struct {
	check func(context.Context, string) (string, error)
	calls atomic.Int64
}

var _ authenticator.Token = (*verifying)(nil)

// AuthenticateToken implements authenticator.Token.
func (v *verifying) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	v.calls.Add(1)
	subject, err := v.check(ctx, text)
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: subject}}, true, nil
}

// goPaseto is a peer of go-paseto: how it parses, and how it seals.
func (c claims) goPaseto(tb testing.TB, name string, parse func(text string) (*paseto.Token, error), seal func(*paseto.Token) string) *peer {
	tb.Helper()
	check := func(_ context.Context, text string) (string, error) {
		token, err := parse(text)
		if err != nil {
			return "", err
		}
		return token.GetSubject()
	}
	return c.sealed(tb, &peer{name: name, check: check}, func(payload string) (string, error) {
		token, err := paseto.NewTokenFromClaimsJSON([]byte(payload), []byte(c.footer))
		if err != nil {
			return "", err
		}
		return seal(token), nil
	})
}

func (c claims) pasetoV4Public(tb testing.TB) *peer {
	tb.Helper()
	key, parser := paseto.NewV4AsymmetricSecretKey(), rules()
	public := key.Public()
	return c.goPaseto(tb, "go-paseto_v4.public",
		func(text string) (*paseto.Token, error) { return parser.ParseV4Public(public, text, nil) },
		func(t *paseto.Token) string { return t.V4Sign(key, nil) })
}

func (c claims) pasetoV4Local(tb testing.TB) *peer {
	tb.Helper()
	key, parser := paseto.NewV4SymmetricKey(), rules()
	return c.goPaseto(tb, "go-paseto_v4.local",
		func(text string) (*paseto.Token, error) { return parser.ParseV4Local(key, text, nil) },
		func(t *paseto.Token) string { return t.V4Encrypt(key, nil) })
}

// o1egl is a peer of o1egl/paseto: how it opens a token, and how it seals one.
func (c claims) o1egl(tb testing.TB, name string, open func(text string, into *pasetov2.JSONToken) error, seal func(payload string) (string, error)) *peer {
	tb.Helper()
	check := func(_ context.Context, text string) (string, error) {
		var token pasetov2.JSONToken
		if err := open(text, &token); err != nil {
			return "", err
		}
		// Its ValidAt passes a token without a time; ours all have one.
		if err := token.Validate(pasetov2.IssuedBy(issuer), pasetov2.ForAudience(audience), pasetov2.ValidAt(time.Now())); err != nil {
			return "", err
		}
		return token.Subject, nil
	}
	return c.sealed(tb, &peer{name: name, check: check}, seal)
}

func (c claims) pasetoV2Public(tb testing.TB) *peer {
	tb.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	require.NoError(tb, err)
	v2 := pasetov2.NewV2()
	return c.o1egl(tb, "o1egl_v2.public",
		func(text string, into *pasetov2.JSONToken) error { return v2.Verify(text, public, into, nil) },
		func(payload string) (string, error) { return v2.Sign(key, payload, c.footer) })
}

func (c claims) pasetoV2Local(tb testing.TB) *peer {
	tb.Helper()
	key, v2 := random(32), pasetov2.NewV2()
	return c.o1egl(tb, "o1egl_v2.local",
		func(text string, into *pasetov2.JSONToken) error { return v2.Decrypt(text, key, into, nil) },
		func(payload string) (string, error) { return v2.Encrypt(key, payload, c.footer) })
}

// jwtClaims are the claims of fob with the times of a JWT (RFC 7519, section 2:
// NumericDate).
type jwtClaims struct {
	jwt.RegisteredClaims
	Scope   string     `json:"scope"`
	SubType string     `json:"sub_type,omitempty"`
	Use     string     `json:"use"`
	Grants  []jwtGrant `json:"authorization_details"`
}

type jwtGrant struct {
	Type        string   `json:"type"`
	Actions     []string `json:"actions"`
	Identifiers []string `json:"identifiers"`
}

// jwt is a peer of golang-jwt with one key and the one algorithm it accepts.
func (c claims) jwt(tb testing.TB, method jwt.SigningMethod, sign, verify any) *peer {
	tb.Helper()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{method.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	keyOf := func(*jwt.Token) (any, error) { return verify, nil }
	check := func(_ context.Context, text string) (string, error) {
		var got jwtClaims
		if _, err := parser.ParseWithClaims(text, &got, keyOf); err != nil {
			return "", err
		}
		return got.Subject, nil
	}
	return c.sealed(tb, &peer{name: "golang-jwt_" + method.Alg(), check: check}, func(payload string) (string, error) {
		var times struct {
			IssuedAt  time.Time `json:"iat"`
			NotBefore time.Time `json:"nbf"`
			ExpiresAt time.Time `json:"exp"`
		}
		if err := json.Unmarshal([]byte(payload), &times); err != nil {
			return "", err
		}
		var all map[string]any
		if err := json.Unmarshal([]byte(payload), &all); err != nil {
			return "", err
		}
		all["iat"], all["nbf"], all["exp"] = times.IssuedAt.Unix(), times.NotBefore.Unix(), times.ExpiresAt.Unix()
		token := jwt.NewWithClaims(method, jwt.MapClaims(all))
		return token.SignedString(sign)
	})
}

func (c claims) jwtEdDSA(tb testing.TB) *peer {
	tb.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	require.NoError(tb, err)
	return c.jwt(tb, jwt.SigningMethodEdDSA, key, public)
}

func (c claims) jwtHS256(tb testing.TB) *peer {
	tb.Helper()
	key := random(32)
	return c.jwt(tb, jwt.SigningMethodHS256, key, key)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never returns an error
	return b
}
