package fob_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// keySource is a source of keys that a test can break.
type keySource struct {
	fob.TokenKeySource
	calls atomic.Int64
	fail  atomic.Pointer[func(ctx context.Context) error]
}

func (s *keySource) TokenKeys(ctx context.Context) ([]fob.TokenKey, error) {
	s.calls.Add(1)
	if fail := s.fail.Load(); fail != nil {
		return nil, (*fail)(ctx)
	}
	return s.TokenKeySource.TokenKeys(ctx)
}

func (s *keySource) breaks(how func(ctx context.Context) error) { s.fail.Store(&how) }

func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// sourced makes an issuer of signed tokens and a verifier of them.
func sourced(t *testing.T) (*fob.Manager, *keySource, *fob.TokenVerifier) {
	t.Helper()
	m := after(t, memory.New(), tokenConfig(protocol(fob.V4Public)))
	source := &keySource{TokenKeySource: m}
	v, err := fob.NewTokenVerifier(source, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}})
	require.NoError(t, err)
	return m, source, v
}

// named is a token that names a key which does not exist.
func named(text string, n int) string {
	return text[:strings.LastIndex(text, ".")+1] + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"kid":"k4.pid.%044d"}`, n))
}

// A source of keys that hangs or fails holds nobody up whose key is known.
func TestASourceThatIsDownHoldsNobodyUp(t *testing.T) {
	for name, how := range map[string]func(context.Context) error{
		"hangs": hang, "fails": func(context.Context) error { return errors.New("down") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, source, v := sourced(t)
				defer m.Close()
				issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
				fresh := mustToken(t, m, fob.TokenSpec{TTL: time.Hour}) // its key is known, and it is not in the cache
				_, err := v.Verify(t.Context(), issued.Access.Reveal())
				require.NoError(t, err)
				source.breaks(how)
				var late atomic.Int64
				for range 100 { // 50 minutes
					time.Sleep(30 * time.Second)
					var wg sync.WaitGroup
					for i := range 20 {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(context.Background(), time.Second)
							defer cancel()
							began := time.Now()
							text := issued.Access.Reveal()
							if i%2 == 1 {
								text = fresh.Access.Reveal()
							}
							_, err := v.Verify(ctx, text)
							if err != nil {
								t.Error(err)
							}
							if time.Since(began) > 0 {
								late.Add(1)
							}
						})
					}
					wg.Wait()
				}
				require.LessOrEqual(t, late.Load(), int64(100), "at most one at a time waits for the source")
				require.LessOrEqual(t, source.calls.Load(), int64(110))
				time.Sleep(11 * time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err = v.Verify(ctx, issued.Access.Reveal())
				mustBeUnsure(t, err)
			})
		})
	}
}

// Keys that somebody makes up cost the source a call a second, also while it fails.
func TestMadeUpKeysCostTheSourceACallASecond(t *testing.T) {
	for name, how := range map[string]func(context.Context) error{
		"works": nil, "hangs": hang, "fails": func(context.Context) error { return errors.New("down") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, source, v := sourced(t)
				defer m.Close()
				issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
				text := issued.Access.Reveal()
				_, err := v.Verify(t.Context(), text)
				require.NoError(t, err)
				if how != nil {
					source.breaks(how)
				}
				time.Sleep(time.Second) // what was fetched until then tells that it is unknown
				began, before := time.Now(), source.calls.Load()
				for n := range 2000 {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					_, err := v.Verify(ctx, named(text, n))
					cancel()
					require.Error(t, err)
					if how == nil {
						require.ErrorIs(t, err, fob.ErrTokenKey)
					} else {
						mustBeUnsure(t, err)
					}
					time.Sleep(5 * time.Millisecond)
					if n%10 == 0 {
						_, err := v.Verify(t.Context(), text)
						require.NoError(t, err)
					}
				}
				seconds := int64(time.Since(began)/time.Second) + 2
				require.LessOrEqual(t, source.calls.Load()-before, 2*seconds)
				// A key that is new is found when the source works.
				source.fail.Store(nil)
				next, err := m.RotateTokenKey(t.Context())
				require.NoError(t, err)
				time.Sleep(time.Until(next.ActiveAt) + time.Second)
				later := mustToken(t, m, fob.TokenSpec{})
				require.Equal(t, next.ID, later.Token.KeyID())
				_, err = v.Verify(t.Context(), later.Access.Reveal())
				require.NoError(t, err)
			})
		})
	}
}

// With nothing known, a source that fails is asked once a second, and all are told.
func TestAVerifierThatNeverHadKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, source, v := sourced(t)
		defer m.Close()
		text := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		source.breaks(func(context.Context) error { return errors.New("down") })
		for range 100 {
			_, err := v.Verify(t.Context(), text)
			mustBeUnsure(t, err)
		}
		require.Equal(t, int64(1), source.calls.Load())
		source.fail.Store(nil)
		time.Sleep(time.Second)
		_, err := v.Verify(t.Context(), text)
		require.NoError(t, err)
		// One who had no time fails alone.
		v, err = fob.NewTokenVerifier(source, fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}})
		require.NoError(t, err)
		source.breaks(hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = v.Verify(ctx, text)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		source.fail.Store(nil)
		_, err = v.Verify(t.Context(), text)
		require.NoError(t, err)
	})
}

// Many who come first make one read of the ring, and whoever asks for the public keys
// waits for none where they are known.
func TestManyFirstTokensReadTheRingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		issuer := after(t, store, tokenConfig())
		defer issuer.Close()
		fault := backendtest.NewFault(store)
		m := after(t, fault, tokenConfig())
		defer m.Close()
		var texts []string
		for range 200 {
			texts = append(texts, mustToken(t, issuer, fob.TokenSpec{}).Access.Reveal())
		}
		ring := callsOf(backendtest.OpGet, fob.RecordRing)
		reads := atomic.Int64{}
		slow := func(c backendtest.Call) backendtest.Injection {
			if ring(c) {
				reads.Add(1)
				return backendtest.Injection{Delay: 50 * time.Millisecond}
			}
			return backendtest.Injection{}
		}
		verifyAll := func() {
			var wg sync.WaitGroup
			for n, text := range texts {
				wg.Go(func() {
					time.Sleep(time.Duration(n) * time.Millisecond) // while it is read, too
					_, err := m.Verify(context.Background(), text)
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		fault.Inject(slow)
		verifyAll()
		require.Equal(t, int64(1), reads.Load())

		// The same with a new key that this process does not know yet.
		next, err := issuer.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Until(next.ActiveAt) + time.Second)
		reads.Store(0)
		for n := range texts {
			texts[n] = mustToken(t, issuer, fob.TokenSpec{}).Access.Reveal()
		}
		verifyAll()
		require.Equal(t, int64(1), reads.Load())
		_, err = m.TokenKeys(t.Context())
		require.NoError(t, err)
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if ring(c) {
				return backendtest.Injection{Hang: true}
			}
			return backendtest.Injection{}
		})
		began := time.Now()
		keys, err := m.TokenKeys(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 2)
		require.Zero(t, time.Since(began))
	})
}

// Without a feed too a process seals with the key that the others seal with, and none
// of its tokens is unknown to them.
func TestTheRingInMemoryGrowsNotOldWithoutAFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		here, there := after(t, store, tokenConfig()), after(t, fault, tokenConfig())
		defer here.Close()
		defer there.Close()
		mustVerify(t, here, mustToken(t, there, fob.TokenSpec{}).Access.Reveal())
		next, err := here.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(63 * time.Minute)
		issued := mustToken(t, there, fob.TokenSpec{})
		require.Equal(t, next.ID, issued.Token.KeyID())
		mustVerify(t, here, issued.Access.Reveal())
		// A ring that cannot be read is no reason to call a token unknown, or to fail, as
		// long as it is known what to do.
		onEach(fault, callsOf("", fob.RecordRing), backendtest.Unavailable())
		time.Sleep(30 * time.Second)
		text := mustToken(t, there, fob.TokenSpec{}).Access.Reveal()
		next, err = here.RotateTokenKey(t.Context())
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		mustVerify(t, there, text)
		_, err = there.Verify(t.Context(), mustToken(t, here, fob.TokenSpec{}).Access.Reveal())
		mustBeUnsure(t, err)
		_, err = there.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
		mustBeUnsure(t, err)
		fault.Inject(nil)
		require.Equal(t, next.ID, mustToken(t, there, fob.TokenSpec{}).Token.KeyID())
	})
}
