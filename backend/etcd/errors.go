package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unsent is a failure before the write itself was sent: it surely was not
// applied.
type unsent struct{ err error }

func (u unsent) Error() string { return u.err.Error() }
func (u unsent) Unwrap() error { return u.err }

// verdict reports whether err is about the call itself and goes to the caller as
// it is: an answer, or about what is stored.
func verdict(err error) bool {
	for _, answer := range []error{
		backend.ErrNotFound, backend.ErrConflict, backend.ErrInvalid, backend.ErrCorrupt, backend.ErrClosed, backend.ErrUnavailable,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// ended is the error of a context that is over, or that is so in a moment: the
// server measures the same deadline and may be first to notice.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if at, ok := ctx.Deadline(); ok && time.Until(at) < 2*time.Millisecond {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// readFailure is what a read answers that failed with err under the caller's ctx.
func readFailure(ctx context.Context, what string, err error) error {
	if err == nil || verdict(err) {
		return err
	}
	if over := ended(ctx); over != nil {
		return fmt.Errorf("etcd: %s: %w", what, over)
	}
	// Not %w: the end of a deadline of ours must not look like that of the caller's.
	return fmt.Errorf("etcd: %s: %w: %v", what, backend.ErrUnavailable, err)
}

// writeFailure is what a write answers that failed with err: ErrIndeterminate,
// unless it surely was not applied.
func writeFailure(ctx context.Context, what string, err error) error {
	var before unsent
	switch {
	case err == nil:
		return nil
	case errors.As(err, &before):
		return readFailure(ctx, what, before.err)
	case verdict(err):
		return err
	case refused(err):
		if over := ended(ctx); over != nil {
			return fmt.Errorf("etcd: %s: %w", what, over)
		}
		return fmt.Errorf("etcd: %s: %w: %v", what, backend.ErrUnavailable, err)
	}
	if over := ended(ctx); over != nil {
		return fmt.Errorf("etcd: %s: %w: %w", what, backend.ErrIndeterminate, over)
	}
	return fmt.Errorf("etcd: %s: %w: %v", what, backend.ErrIndeterminate, err)
}

// refused reports whether a member answered that it did not, and will not, carry
// out a write. Each of these is given before the write is proposed to the
// cluster, or by the state machine in place of applying it. What is not listed
// may have been applied: a timeout, a change of leader, a connection that was
// lost, a member that stops.
func refused(err error) bool {
	switch rpctypes.Error(err) {
	case rpctypes.ErrNoSpace, rpctypes.ErrCorrupt, // alarms
		rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrTooManyRequests, rpctypes.ErrEmptyKey,
		rpctypes.ErrDuplicateKey, rpctypes.ErrCompacted, rpctypes.ErrFutureRev,
		rpctypes.ErrNoLeader, rpctypes.ErrNotCapable, // by the interceptor, before the request is looked at
		rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision,
		rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrInvalidAuthMgmt:
		return true
	}
	return rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
}

// passing reports whether a refusal ends by itself, soon: during an election, or
// because a member is overwhelmed.
func passing(err error) bool {
	err = rpctypes.Error(err)
	return err == rpctypes.ErrNoLeader || err == rpctypes.ErrTooManyRequests
}

// compacted reports whether the revision that was asked for is gone.
func compacted(err error) bool { return rpctypes.Error(err) == rpctypes.ErrCompacted }

// hopeless reports whether a feed cannot go on however often it is tried.
func hopeless(err error) bool {
	if errors.Is(err, errClientClosed) || errors.Is(err, errFormat) {
		return true
	}
	// A watch says why it was refused as text within text.
	return code(err) == codes.PermissionDenied || rpctypes.Error(err) == rpctypes.ErrUserEmpty ||
		err != nil && strings.Contains(err.Error(), rpctypes.ErrPermissionDenied.Error())
}

func code(err error) codes.Code {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code()
	}
	return status.Code(err)
}
