package fob_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestEachChangeIsReportedOnce: by the call that made it, with whose key it was; a call that
// finds it made writes nothing and reports nothing, unless what it finds may be its own.
func TestEachChangeIsReportedOnce(t *testing.T) {
	for _, c := range []struct {
		event  fob.EventType
		change func(m *fob.Manager, k *fob.Key) error
	}{
		{fob.EventDisabled, func(m *fob.Manager, k *fob.Key) error { return m.Disable(t.Context(), k.ID(), "") }},
		{fob.EventEnabled, func(m *fob.Manager, k *fob.Key) error { return m.Enable(t.Context(), k.ID()) }},
		{fob.EventRevoked, func(m *fob.Manager, k *fob.Key) error {
			_, err := m.Revoke(t.Context(), k.ID(), "leaked")
			return err
		}},
	} {
		for name, inject := range map[string]backendtest.Injection{
			"confirmed": {}, "its answer lost": backendtest.LostAck(), "surely not made": backendtest.Unavailable(),
		} {
			t.Run(c.event.String()+" "+name, func(t *testing.T) {
				fault, seen := backendtest.NewFault(memory.New()), &observed{}
				m := newManager(t, bare{fault}, fob.Config{Observer: seen})
				_, key := mustIssue(t, m, fob.KeySpec{})
				if c.event == fob.EventEnabled {
					require.NoError(t, m.Disable(t.Context(), key.ID(), ""))
				}
				seen.take()
				fault.InjectOnce(backendtest.OpPut, inject)
				err := c.change(m, key)
				fault.Inject(nil)
				if inject.Fail != nil {
					require.ErrorIs(t, err, backend.ErrUnavailable)
					require.Empty(t, seen.take())
					require.NoError(t, c.change(m, key))
				}
				told := seen.take()
				require.Len(t, told, 1)
				require.Equal(t, c.event, told[0].Type)
				require.Equal(t, key.ID(), told[0].ID)
				require.Equal(t, "app-42", told[0].Subject.Name)
				require.NoError(t, told[0].Err)

				puts := fault.Calls(backendtest.OpPut)
				require.NoError(t, c.change(m, key))
				require.Empty(t, seen.take(), "made before")
				require.Equal(t, puts, fault.Calls(backendtest.OpPut))
			})
		}
	}
}

// TestWhatIsSaidOfASubjectsRevocation: the reason as it is kept, and nothing of an earlier
// one, for what was issued since is ended now.
func TestWhatIsSaidOfASubjectsRevocation(t *testing.T) {
	clock, seen := newClock(), &observed{}
	m := newManager(t, nil, fob.Config{Clock: clock.Now, Observer: seen})
	for range 2 {
		receipt, err := m.Revoke(t.Context(), fob.App("a"), fob.RevokeReason("le\x1bft\n"+strings.Repeat("é", 200)))
		require.NoError(t, err)
		require.False(t, receipt.Already)
		require.Equal(t, clock.Now(), receipt.At)
		told := seen.take()
		require.Len(t, told, 1)
		for _, e := range told {
			require.Equal(t, fob.RevokeReason("left"+strings.Repeat("é", 126)), e.Reason)
		}
	}
}

// TestTheRecordOfASubjectThatCannotBeRead: nobody knows what it has ended, so that nothing of
// the subject is issued, changed or accepted, and its epoch is not begun anew.
func TestTheRecordOfASubjectThatCannotBeRead(t *testing.T) {
	for name, change := range map[string]func(rec *backend.Record, f map[byte]string){
		"no epoch":             func(_ *backend.Record, f map[byte]string) { delete(f, fob.FieldEpoch) },
		"an epoch of 7 bytes":  func(_ *backend.Record, f map[byte]string) { f[fob.FieldEpoch] = f[fob.FieldEpoch][1:] },
		"a field nobody knows": func(_ *backend.Record, f map[byte]string) { f[250] = "x" },
		"a kind and no name":   func(rec *backend.Record, _ map[byte]string) { rec.Owner = "1" },
		"no owner":             func(rec *backend.Record, _ map[byte]string) { rec.Owner = "" },
		"no kind of subject":   func(rec *backend.Record, _ map[byte]string) { rec.Owner = "7app-42" },
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			m := newManager(t, bare{store}, tokenConfig())
			_, err := m.Revoke(t.Context(), fob.App("app-42"), "")
			require.NoError(t, err)
			text, key := mustIssue(t, m, fob.KeySpec{})
			issued := mustExchange(t, m, text, fob.TokenSpec{Refreshable: true})
			alter(t, store, fob.SubjectRecord(fob.SubjectApplication, "app-42"), change)
			m = newManager(t, bare{store}, tokenConfig())
			for what, call := range map[string]func() error{
				"verify":  func() error { _, err := m.Verify(t.Context(), text); return err },
				"refresh": func() error { _, err := m.Refresh(t.Context(), issued.Refresh.Reveal()); return err },
				"disable": func() error { return m.Disable(t.Context(), key.ID(), "") },
				"rotate":  func() error { _, _, err := m.RotateKey(t.Context(), key.ID(), fob.Rotation{}); return err },
				"issue": func() error {
					_, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.App("app-42")})
					return err
				},
				"revoke": func() error {
					_, err := m.Revoke(t.Context(), fob.App("app-42"), "")
					return err
				},
			} {
				err := call()
				mustBeUnsure(t, err)
				require.ErrorIs(t, err, fob.ErrCorrupt, what)
			}
		})
	}
}

// TestTheSmallestEpochIsOne, in an export that somebody wrote by hand: it ends what was
// issued before any, and the next is higher.
func TestTheSmallestEpochIsOne(t *testing.T) {
	const line = `{"subject":{"kind":"application","name":"app-42"},"epoch":1}`
	m := newManager(t, bare{memory.New()}, fob.Config{})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	done, err := m.ApplyRevocations(t.Context(), strings.NewReader(line))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Revoked: 1}, done)
	mustReject(t, m, text, fob.ErrRevoked)
	done, err = m.ApplyRevocations(t.Context(), strings.NewReader(line))
	require.NoError(t, err)
	require.Equal(t, fob.Applied{Already: 1}, done)
	text, _ = mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	_, err = m.Revoke(t.Context(), fob.App("app-42"), "left")
	require.NoError(t, err)
	mustReject(t, m, text, fob.ErrRevoked)
}

// TestAnEpochThatRoseMeanwhileStays: an export is applied while somebody else revokes the
// subject. What is reported is what was changed, and no reason is written over.
func TestAnEpochThatRoseMeanwhileStays(t *testing.T) {
	for name, c := range map[string]struct{ ours, theirs uint64 }{
		"to the same": {5, 5}, "to more": {5, 6}, "to more than the smallest": {1, 6}, "to less": {5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			line := func(epoch uint64, reason string) *strings.Reader {
				return strings.NewReader(fmt.Sprintf(`{"subject":{"kind":"application","name":"app-42"},"epoch":%d,"reason":%q}`, epoch, reason))
			}
			store, seen := memory.New(), &observed{}
			fault := backendtest.NewFault(store)
			m, other := newManager(t, bare{fault}, fob.Config{Observer: seen}), newManager(t, bare{store}, fob.Config{})
			text, _ := mustIssue(t, m, fob.KeySpec{})
			mustVerify(t, m, text) // and remembered
			seen.take()
			once(fault, callsOf(backendtest.OpGet, fob.RecordSubject), backendtest.Injection{After: func() {
				_, err := other.ApplyRevocations(context.Background(), line(c.theirs, "theirs"))
				require.NoError(t, err)
			}})
			_, err := m.ApplyRevocations(t.Context(), line(c.ours, "ours"))
			require.NoError(t, err)
			told := seen.take()
			if c.ours > c.theirs {
				require.Len(t, told, 1)
				require.Equal(t, c.ours, told[0].Epoch)
			} else {
				require.Empty(t, told, "it was theirs")
			}
			rec := mustList(t, store, 2)[0]
			want := "theirs"
			if c.ours > c.theirs {
				want = "ours"
			}
			require.Equal(t, want, textsOf(t, rec)[fob.FieldReason])
			mustReject(t, m, text, fob.ErrRevoked)
		})
	}
}

// TestAKeyWhoseSubjectCannotBeReadIsNeitherEnabledNorDisabled.
func TestAKeyWhoseSubjectCannotBeReadIsNeitherEnabledNorDisabled(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{})
	text, key := mustIssue(t, m, fob.KeySpec{})
	for name, change := range map[string]func() error{
		"disable": func() error { return m.Disable(t.Context(), key.ID(), "") },
		"enable":  func() error { return m.Enable(t.Context(), key.ID()) },
	} {
		onEach(fault, callsOf(backendtest.OpGet, fob.RecordSubject), backendtest.Unavailable())
		err := change()
		fault.Inject(nil)
		require.ErrorIs(t, err, backend.ErrUnavailable, name)
		require.NotErrorIs(t, err, fob.ErrRevoked, name)
		mustVerify(t, m, text)
	}
}

// TestWhatTheFeedHasNotToldYet: that a token, a family or a subject was revoked elsewhere is
// found where it is revoked here, and holds here from then on, however late the feed is.
func TestWhatTheFeedHasNotToldYet(t *testing.T) {
	for name, revoke := range map[string]func(ctx context.Context, m *fob.Manager, i fob.Issued) error{
		"a token": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.ID(), "")
			return err
		},
		"a family": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.Revoke(ctx, i.Token.Session(), "")
			return err
		},
		"a subject": func(ctx context.Context, m *fob.Manager, i fob.Issued) error {
			_, err := m.ApplyRevocations(ctx, strings.NewReader(`{"subject":{"kind":"user","name":"user-7"},"epoch":5}`))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				fault := backendtest.NewFault(store)
				cfg := tokenConfig()
				cfg.MaxStaleness = 2 * time.Second
				m, other := newManager(t, fault, cfg), newManager(t, store, cfg)
				issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
				text, _ := mustIssue(t, m, fob.KeySpec{Subject: fob.User("user-7")})
				mustVerify(t, m, issued.Access.Reveal())
				mustVerify(t, m, text)
				pass(time.Second)
				onEach(fault, callsOf(backendtest.OpBatch), backendtest.Injection{Delay: time.Second})
				require.NoError(t, revoke(t.Context(), other, issued))
				mustVerify(t, m, issued.Access.Reveal()) // as MaxStaleness allows
				mustVerify(t, m, text)
				require.NoError(t, revoke(t.Context(), m, issued))
				mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
				if name == "a subject" {
					mustReject(t, m, text, fob.ErrRevoked)
				}
				require.True(t, m.Health().Following)
				fault.Inject(nil)
				require.NoError(t, m.Close())
				require.NoError(t, other.Close())
			})
		})
	}
}
