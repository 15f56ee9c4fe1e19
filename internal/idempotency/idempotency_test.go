package idempotency_test

import (
	"context"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/idempotency"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/stretchr/testify/require"
)

const (
	requestID = "5f0c9a52-6f1e-4a55-9d0c-2c1a7f6f3f11"
	start     = 1_700_000_000_000
	hour      = int64(time.Hour / time.Millisecond)
	day       = 24 * hour

	// An answer that was stored before this package was there, and the key it leads to.
	oldRef    = "0465852488021770bb673bea864cb556"
	oldAnswer = "011710376973313633316241764443644d4a41185f0270310bfa34059a4e6665a17d7136e73c392f" +
		"968b3e4632270e7cb81bcfddfc817fc9975c9da2e4b971398c398b86296fafe27df0e5d5bd35b68e" +
		"39e9acdff98891c90e1055d9df2b89f61cd05408cc544b208c2082fdcad93fbde88a61fa1920d004" +
		"e94d9c22cc204fcb44afe287acc8dea1d475f2793057aab4839a742df1bac3702a18"
	oldText = "fob_test_17is1631bAvDCdMJACNpca08OAO7RUUVvyZOpLyCVspWghAwM1WxP93"
)

func oldRequest() idempotency.Request {
	return idempotency.Request{
		Subject: "shop", SubjectKind: 1, Name: "till", Scopes: "orders:read orders:write",
		Tags: []string{"eu", "pos"}, NotBefore: start + 1000, TTL: time.Hour,
	}
}

func newKey(at int64) *keystate.State {
	k := &keystate.State{Prefix: "fob_test", IssuedAt: at, Status: keystate.Active}
	k.SetOwner(1, "", "shop")
	return k
}

// lossyStore fails the writes of keys while it is set to.
type lossyStore struct {
	backend.Store
	loses bool
}

var errLost = errors.New("the connection is gone")

func (s *lossyStore) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if s.loses && rec.Kind == record.Key {
		return 0, errLost
	}
	return s.Store.Put(ctx, rec, cond)
}

func newIssuer(store backend.Store) *idempotency.Issuer {
	c := new(clock.Clock)
	c.Start(func() time.Time { return time.UnixMilli(start) }, time.Hour)
	kept := recordstore.Store{Store: store, Forget: func(...backend.ID) {}}
	i := &idempotency.Issuer{
		Keys:    keystate.Store{Store: kept, Closed: func() bool { return false }},
		Peppers: pepper.NewKeeper(pepper.KeeperConfig{Store: kept, Clock: c, Problem: func(string, error) {}}),
		Window:  24 * time.Hour,
	}
	i.Peppers.Add("p1", []byte("a pepper of thirty-two bytes, 001"))
	i.Digest = func(k *keystate.State, text string) {
		block := keytext.Block(text)
		k.Digest, k.Pepper = i.Peppers.Digest(block[:])
	}
	i.Draw = func(k *keystate.State) string {
		k.ID = keytext.NewID(time.UnixMilli(k.IssuedAt))
		text := keytext.Format(k.Prefix, k.ID, keytext.NewSecret())
		i.Digest(k, text)
		return text
	}
	i.Find = func(ctx context.Context, id record.ID) error {
		_, err := i.Keys.Read(ctx, id)
		return err
	}
	return i
}

func TestARepeatGetsTheSameKeyUntilItsWindowIsOver(t *testing.T) {
	i := newIssuer(memory.New())
	issue := func(at int64, req idempotency.Request) (string, bool, error) {
		return i.Issue(t.Context(), requestID, req, newKey(at), at)
	}
	text, created, err := issue(start, oldRequest())
	require.NoError(t, err)
	require.True(t, created)

	again, created, err := issue(start+day-1, oldRequest())
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, text, again)

	other := oldRequest()
	other.Tags = []string{"eupos"}
	_, _, err = issue(start, other)
	require.ErrorIs(t, err, errs.ErrIdempotency)

	later, created, err := issue(start+day, oldRequest())
	require.NoError(t, err)
	require.True(t, created)
	require.NotEqual(t, text, later)
}

func TestARepeatFinishesACallThatWasCutOff(t *testing.T) {
	store := &lossyStore{Store: memory.New(), loses: true}
	i := newIssuer(store)
	first := newKey(start)
	_, _, err := i.Issue(t.Context(), requestID, oldRequest(), first, start)
	require.ErrorIs(t, err, errLost)

	store.loses = false
	repeated := newKey(start + 1)
	text, created, err := i.Issue(t.Context(), requestID, oldRequest(), repeated, start+1)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, first.ID, repeated.ID)
	require.Equal(t, first.Digest, repeated.Digest)
	require.Equal(t, keytext.OK, keytext.Check(text))

	read, err := i.Keys.Read(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, first.Digest, read.Digest)
	require.Equal(t, start+day+clock.PurgeMargin.Milliseconds()+hour, read.KeptUntil, "longer than the answer")
}

func TestAnAnswerOfBeforeStillOpens(t *testing.T) {
	ref, err := hex.DecodeString(oldRef)
	require.NoError(t, err)
	body, err := hex.DecodeString(oldAnswer)
	require.NoError(t, err)
	store := memory.New()
	_, err = store.Put(t.Context(), backend.Record{
		ID: backend.ID(ref), Kind: record.Idempotency, Owner: "1shop", Created: start, PurgeAt: start + 2*day, Body: body,
	}, backend.IfAbsent())
	require.NoError(t, err)

	text, created, err := newIssuer(store).Issue(t.Context(), requestID, oldRequest(), newKey(start), start)
	require.NoError(t, err)
	require.True(t, created, "its key was not stored")
	require.Equal(t, oldText, text)
}

func TestAnIdempotencyKeyHas16To256Bytes(t *testing.T) {
	for _, length := range []int{15, 257} {
		_, _, err := newIssuer(memory.New()).Issue(t.Context(), string(make([]byte, length)), oldRequest(), newKey(start), start)
		require.ErrorIs(t, err, errs.ErrInvalid)
	}
}
