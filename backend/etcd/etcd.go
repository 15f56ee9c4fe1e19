package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
)

// Options is the settings of a Store. The zero Options is the recommended one.
type Options struct {
	// Prefix begins every key of the store. Stores of one cluster need different
	// ones, none of them the start of another: end it with a separator. At most 256
	// bytes. Default "fob/".
	Prefix string
	// Timeout bounds each call whose context does not end sooner, so that a network
	// that swallows everything hangs nobody. Default 5 s, longer than an election
	// takes with etcd's own defaults.
	Timeout time.Duration
	// Logger gets a warning when the feed is interrupted, or when something in etcd
	// is damaged. Nil discards it all.
	Logger *slog.Logger
}

const (
	defaultPrefix  = "fob/"
	maxPrefix      = 256
	defaultTimeout = 5 * time.Second
)

func (o Options) resolved() (Options, error) {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if len(o.Prefix) > maxPrefix {
		return o, fmt.Errorf("etcd: prefix of %d bytes, at most %d", len(o.Prefix), maxPrefix)
	}
	if o.Timeout < 0 {
		return o, fmt.Errorf("etcd: Timeout %v is negative", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Store is a store in an etcd cluster. Make one with New. It is safe for
// concurrent use, by any number of processes at the same cluster, and runs one
// goroutine for each Watch.
type Store struct {
	opts   Options
	client *clientv3.Client
	kv     clientv3.KV
	keys   keys

	marker  atomic.Pointer[marker] // of this layout, once it was seen
	folding chan struct{}          // a place for the one call that folds usage
	recent  recent

	calls     calls.Gate
	life      context.Context // ends with Close
	end       context.CancelFunc
	followers sync.WaitGroup // the goroutines of the feeds
}

var (
	_ backend.Store         = (*Store)(nil)
	_ backend.Watcher       = (*Store)(nil)
	_ backend.Lister        = (*Store)(nil)
	_ backend.Counter       = (*Store)(nil)
	_ backend.BulkReader    = (*Store)(nil)
	_ backend.Scanner       = (*Store)(nil)
	_ backend.UsageRecorder = (*Store)(nil)
	_ backend.Purger        = (*Store)(nil)
	_ backend.Maintainer    = (*Store)(nil)
)

// New returns a store that uses client, which the caller opens, with its
// endpoints, TLS and user, and closes after the store. It does no I/O: a cluster
// that cannot be reached shows in the first call.
//
// Wrappers that the caller put into the client's KV or Watcher fields (such as
// those of clientv3/namespace) are not used: what writes and what watches must
// agree on the keys. Options.Prefix does their work.
func New(client *clientv3.Client, opts Options) (*Store, error) {
	if client == nil {
		return nil, errors.New("etcd: no client")
	}
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts, client: client, calls: calls.Gate{Engine: "etcd"}, kv: clientv3.NewKV(client), keys: keys{opts.Prefix}, folding: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Close implements backend.Store. It waits for the calls under way, which
// Options.Timeout bounds, and leaves the client open: it is the caller's.
func (s *Store) Close() error {
	s.end()
	s.calls.Close()
	s.followers.Wait()
	return nil
}

// enter is the start of every call; s.calls.Leave ends it.
func (s *Store) enter(ctx context.Context) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	if s.client.Ctx().Err() != nil {
		s.calls.Leave()
		return errClientClosed
	}
	return nil
}

var errClientClosed = fmt.Errorf("etcd: the client was closed: %w", backend.ErrUnavailable)

// bounded is ctx with the end that Options.Timeout gives it.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), s.opts.Timeout)
}

// connected waits until there is a connection to some member. The client would
// wait as well, but would not tell a request that was never sent from one whose
// answer was lost.
func (s *Store) connected(ctx context.Context) error {
	conn := s.client.ActiveConnection()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Shutdown:
			return errClientClosed
		case connectivity.Idle:
			conn.Connect()
		case connectivity.Connecting, connectivity.TransientFailure:
		}
		if !conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("no connection to a member: %w", ctx.Err())
		}
	}
}

const (
	// attempts is how often a call is sent, at least, within Options.Timeout: a
	// member that is cut off, or that lost a proposal when its leader went, keeps it
	// for longer than an election takes elsewhere. The next attempt goes to the next
	// member.
	maxAttempts = 3
	// retryPause is how long what will pass is waited out before the next attempt.
	retryPause = 50 * time.Millisecond
)

// attempt is a part of ctx.
func (s *Store) attempt(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.opts.Timeout/maxAttempts)
}

// waitToRetry waits before the next attempt of what failed with err, and reports whether
// there is to be one: the member did not answer, or says that it cannot at the
// moment.
func waitToRetry(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	switch grpcCode(err) {
	case codes.Unavailable:
		return sleepFor(ctx, retryPause) == nil
	case codes.DeadlineExceeded:
		return true
	default:
		return errors.Is(err, context.DeadlineExceeded) || isPassing(err) && sleepFor(ctx, retryPause) == nil
	}
}

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
