package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unsentError is a failure before the write itself was sent, or after which it was looked
// for and not found: it surely was not applied.
type unsentError struct{ err error }

func (u unsentError) Error() string { return u.err.Error() }
func (u unsentError) Unwrap() error { return u.err }

// isAnswer reports whether err is about the call itself and goes to the caller as
// it is: an answer, or about what is stored.
func isAnswer(err error) bool {
	for _, answer := range []error{
		backend.ErrNotFound, backend.ErrConflict, backend.ErrInvalid, backend.ErrCorrupt, backend.ErrClosed, backend.ErrUnavailable,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// endOfContext is the error of a context that is over, or that is so in a moment: the
// server measures the same deadline and may be first to notice.
func endOfContext(ctx context.Context) error {
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
	if err == nil || isAnswer(err) {
		return err
	}
	if over := endOfContext(ctx); over != nil {
		return fmt.Errorf("etcd: %s: %w", what, over)
	}
	return withCause(what, backend.ErrUnavailable, err)
}

// withCause is a sentinel with its cause, which can be looked for as well, but for
// the end of a deadline of ours: that must not look like one of the caller's.
func withCause(what string, sentinel, err error) error {
	if c := grpcCode(err); c == codes.DeadlineExceeded || c == codes.Canceled || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: %s: %w: no answer in time (%s)", what, sentinel, err.Error())
	}
	return fmt.Errorf("etcd: %s: %w: %w", what, sentinel, err)
}

// writeFailure is what a write answers that failed with err: ErrIndeterminate,
// unless it surely was not applied.
func writeFailure(ctx context.Context, what string, err error) error {
	var before unsentError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &before):
		return readFailure(ctx, what, before.err)
	case isAnswer(err):
		return err
	case isRefusal(err):
		if over := endOfContext(ctx); over != nil {
			return fmt.Errorf("etcd: %s: %w", what, over)
		}
		return withCause(what, backend.ErrUnavailable, err)
	}
	if over := endOfContext(ctx); over != nil {
		return fmt.Errorf("etcd: %s: %w: %w", what, backend.ErrIndeterminate, over)
	}
	return withCause(what, backend.ErrIndeterminate, err)
}

// refusals are the answers of a member that did not, and will not, carry out a
// write. Each is given before the write is proposed to the cluster, or by the state
// machine in place of applying it. What is not listed may have been applied: a
// timeout, a change of leader, a connection that was lost, a member that stops, and
// ErrNoSpace (see isNoSpace).
var refusals = []error{
	rpctypes.ErrCorrupt, // an alarm
	rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrTooManyRequests, rpctypes.ErrEmptyKey,
	rpctypes.ErrDuplicateKey, rpctypes.ErrCompacted, rpctypes.ErrFutureRev,
	rpctypes.ErrNoLeader, rpctypes.ErrNotCapable, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner), // by the interceptor
	rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision,
	rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrInvalidAuthMgmt,
}

// isRefusal reports whether a member refused a write, so that it surely was not
// applied.
func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(refusal error) bool { return isAnswerOf(err, refusal) })
}

// isAnswerOf reports whether err is this answer of etcd's, as the client's own error
// or as the status that it came in.
func isAnswerOf(err, answer error) bool {
	return err != nil && errors.Is(rpctypes.Error(err), answer)
}

// isPassing reports whether a refusal ends by itself, soon: during an election, or
// because a member is overwhelmed.
func isPassing(err error) bool {
	return isAnswerOf(err, rpctypes.ErrNoLeader) || isAnswerOf(err, rpctypes.ErrTooManyRequests)
}

// isNoSpace reports whether the quota is used up. A member looks twice, when a write
// comes in and when it applies it; what is over the quota only then it applies all
// the same, and answers as if it had not. It raises the alarm before it answers, so
// that from then on nothing is applied that takes space, and whoever looks for the
// write after that answer finds it now or never.
func isNoSpace(err error) bool { return isAnswerOf(err, rpctypes.ErrNoSpace) }

// isCompacted reports whether the revision that was asked for is gone.
func isCompacted(err error) bool { return isAnswerOf(err, rpctypes.ErrCompacted) }

// isHopeless reports whether a feed cannot go on however often it is tried.
func isHopeless(err error) bool {
	if errors.Is(err, errClientClosed) || errors.Is(err, errLayout) {
		return true
	}
	// A watch says why it was refused as text within text.
	return grpcCode(err) == codes.PermissionDenied || isAnswerOf(err, rpctypes.ErrUserEmpty) ||
		err != nil && strings.Contains(err.Error(), rpctypes.ErrPermissionDenied.Error())
}

func grpcCode(err error) codes.Code {
	if answer, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return answer.Code()
	}
	return status.Code(err)
}
