package errs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("connection refused")

// The table of classify.go: what an error of the store becomes in a call and in a
// verification, and what that means for the caller.
func TestErrorsOfAStoreHaveTheirClass(t *testing.T) {
	for _, c := range []struct {
		store, call, check                     error
		callOutage, checkOutage, checkRejected bool
	}{
		{backend.ErrNotFound, errs.ErrNotFound, errs.ErrUnknown, true, false, true},
		{backend.ErrConflict, errs.ErrConflict, errs.ErrConflict, true, true, false},
		{backend.ErrIndeterminate, errs.ErrIndeterminate, errs.ErrIndeterminate, true, true, false},
		{backend.ErrCorrupt, errs.ErrCorrupt, errs.ErrCorrupt, false, false, false},
		{errDown, errDown, errDown, true, true, false},
		{context.DeadlineExceeded, context.DeadlineExceeded, context.DeadlineExceeded, true, true, false},
		{backend.ErrClosed, backend.ErrClosed, backend.ErrClosed, false, false, false},
	} {
		t.Run(c.store.Error(), func(t *testing.T) {
			cause := fmt.Errorf("store: %w", c.store)
			call, check := errs.OfStore("read", cause), errs.OfCheck(cause)
			require.ErrorIs(t, call, c.call)
			require.ErrorIs(t, call, c.store, "the store's own error stays reachable")
			require.Contains(t, call.Error(), "read: ")
			require.ErrorIs(t, check, c.check)
			require.Equal(t, c.callOutage, errs.IsOutage(call))
			require.Equal(t, c.checkOutage, errs.IsOutage(check))
			require.Equal(t, c.checkRejected, errors.Is(check, errs.ErrRejected))
			if c.checkRejected {
				require.NoError(t, errs.Unchecked(check))
			} else {
				require.Equal(t, check, errs.Unchecked(check))
			}
		})
	}
	require.NoError(t, errs.Unchecked(nil))
}

func TestWhatIsNoOutage(t *testing.T) {
	for _, err := range []error{
		errs.ErrRejected, errs.ErrExpired, errs.ErrCorrupt, errs.ErrPepper, errs.ErrBusy,
		errs.ErrClosed, errs.ErrSealKey, errs.ErrPanicked, backend.ErrClosed,
	} {
		require.False(t, errs.IsOutage(fmt.Errorf("fob: %w", err)), "%v", err)
	}
}

func TestAnErrorAfterAnUnsureTryIsAnUnknownOutcome(t *testing.T) {
	require.NoError(t, errs.Settle(true, nil))
	require.Equal(t, errs.ErrConflict, errs.Settle(false, errs.ErrConflict))
	settled := errs.Settle(true, errs.ErrConflict)
	require.ErrorIs(t, settled, errs.ErrIndeterminate)
	require.ErrorIs(t, settled, errs.ErrConflict)
	require.Equal(t, settled, errs.Settle(true, settled), "it is not wrapped twice")
}

func TestAForeignErrorIsNoRejection(t *testing.T) {
	hidden := errs.Unclassified(fmt.Errorf("source: %w", errs.ErrRevoked))
	require.NotErrorIs(t, hidden, errs.ErrRejected)
	require.EqualError(t, hidden, "source: fob: credential revoked")
	require.Equal(t, errDown, errs.Unclassified(errDown))
	for _, outcome := range []error{errs.ErrNotFound, errs.ErrAlready, errs.ErrContended, errs.ErrIndeterminate} {
		require.NotErrorIs(t, errs.Unclassified(fmt.Errorf("source: %w", outcome)), outcome, "of another change")
	}
}

func TestUsageMayBeAddedAfterAnUnsureError(t *testing.T) {
	for _, err := range []error{backend.ErrIndeterminate, context.Canceled, context.DeadlineExceeded} {
		require.True(t, errs.MayBeAdded(fmt.Errorf("store: %w", err)), "%v", err)
	}
	for _, err := range []error{nil, errDown, backend.ErrClosed, backend.ErrConflict} {
		require.False(t, errs.MayBeAdded(err), "%v", err)
	}
}

func TestProblemsOfATextAreRejections(t *testing.T) {
	for problem, want := range map[keytext.Problem]error{
		keytext.Length:       errs.ErrKeyLength,
		keytext.Prefix:       errs.ErrKeyPrefix,
		keytext.Version:      errs.ErrKeyVersion,
		keytext.Alphabet:     errs.ErrKeyAlphabet,
		keytext.Checksum:     errs.ErrKeyChecksum,
		keytext.Checksum + 1: errs.ErrMalformed,
	} {
		require.Equal(t, want, errs.OfText(problem))
		require.ErrorIs(t, errs.OfText(problem), errs.ErrMalformed)
		require.ErrorIs(t, errs.OfText(problem), errs.ErrRejected)
	}
}

func TestErrorsOfATokenAreRejectionsUnlessTheKeyIsAtFault(t *testing.T) {
	for cause, want := range map[error]error{
		paseto.ErrSize:     errs.ErrTokenLength,
		paseto.ErrProtocol: errs.ErrTokenProtocol,
		paseto.ErrSeal:     errs.ErrTokenSeal,
		paseto.ErrFormat:   errs.ErrTokenFormat,
	} {
		require.Equal(t, want, errs.OfToken(fmt.Errorf("open: %w", cause)))
		require.ErrorIs(t, want, errs.ErrRejected)
	}
	for _, cause := range []error{paseto.ErrKey, paseto.ErrUnavailable} {
		require.ErrorIs(t, errs.OfToken(cause), cause)
		require.NotErrorIs(t, errs.OfToken(cause), errs.ErrRejected)
	}
}

func TestOnlyWhatIsCorruptLasts(t *testing.T) {
	require.NoError(t, errs.OnlyCorrupt(nil))
	require.NoError(t, errs.OnlyCorrupt(errs.ErrConflict))
	corrupt := errs.OfStore("read", backend.ErrCorrupt)
	require.Equal(t, corrupt, errs.OnlyCorrupt(corrupt))
}
