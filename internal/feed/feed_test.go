package feed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/feed"
	"github.com/stretchr/testify/require"
)

// watch is one call of Watch: what it tells, and how it ends.
type watch struct {
	from    string // the token that it must be asked to go on from
	batches []backend.Batch
	err     error
	panics  bool
}

// script is a feed whose calls of Watch are known beforehand. The last ends the follower.
type script struct {
	t     *testing.T
	calls []watch
	at    []time.Duration // when each was made
	began time.Time
}

func (s *script) Watch(_ context.Context, from backend.Token, tell func(backend.Batch) error) error {
	n := len(s.at)
	s.at = append(s.at, time.Since(s.began))
	call := s.calls[n]
	require.Equal(s.t, call.from, string(from), "call %d", n)
	for _, b := range call.batches {
		if err := tell(b); err != nil {
			return err
		}
	}
	if call.panics {
		panic("a bug")
	}
	return call.err
}

func token(s string) backend.Batch { return backend.Batch{Token: backend.Token(s)} }

func TestAFeedIsFollowed(t *testing.T) {
	wrong := errors.New("wrong")
	reset := token("r")
	reset.Reset = true
	proof := token("p")
	proof.AsOf = time.Unix(1000, 0)
	change := token("c")
	change.Changes = []backend.Change{{ID: backend.ID{1}}}
	for name, c := range map[string]struct {
		calls []watch
		fail  map[string]error // what fails once, by what was called
		want  []string
	}{
		"it begins once": {
			calls: []watch{{batches: []backend.Batch{token("a"), change, proof}, err: backend.ErrClosed}},
			want:  []string{"begin", "apply 0", "apply 1", "apply 0", "proved 1000"},
		},
		"it goes on from where it was": {
			calls: []watch{{batches: []backend.Batch{token("a")}, err: wrong}, {from: "a", batches: []backend.Batch{change, {}}}, {from: "c", err: backend.ErrClosed}},
			want:  []string{"begin", "apply 0", "lost: fob: follow the feed: wrong", "apply 1", "apply 0", "lost: fob: follow the feed: the feed ended"},
		},
		"it begins anew where it cannot go on": {
			calls: []watch{{batches: []backend.Batch{token("a")}, err: backend.ErrInvalid}, {batches: []backend.Batch{change}, err: backend.ErrClosed}},
			want:  []string{"begin", "apply 0", "lost: fob: follow the feed: " + backend.ErrInvalid.Error(), "begin", "apply 1"},
		},
		"it begins anew where the store says so": {
			calls: []watch{{batches: []backend.Batch{token("a"), reset, token("b")}, err: wrong}, {from: "b", err: backend.ErrClosed}},
			want:  []string{"begin", "apply 0", "begin", "apply 0", "apply 0", "lost: fob: follow the feed: wrong"},
		},
		"it begins anew after a beginning that failed": {
			calls: []watch{{batches: []backend.Batch{token("a"), reset}}, {batches: []backend.Batch{token("b")}, err: backend.ErrClosed}},
			fail:  map[string]error{"2 begin": wrong},
			want:  []string{"begin", "apply 0", "begin", "lost: fob: follow the feed: wrong", "begin", "apply 0"},
		},
		"it is told again what could not be taken in": {
			calls: []watch{{batches: []backend.Batch{token("a"), change}}, {from: "a", batches: []backend.Batch{change}, err: backend.ErrClosed}},
			fail:  map[string]error{"1 apply 1": wrong},
			want:  []string{"begin", "apply 0", "apply 1", "lost: fob: follow the feed: wrong", "apply 1"},
		},
		"a panic of the store": {
			calls: []watch{{batches: []backend.Batch{token("a")}, panics: true}, {from: "a", err: backend.ErrClosed}},
			want:  []string{"begin", "apply 0", "lost: fob: follow the feed: " + errs.ErrPanicked.Error() + ": a bug"},
		},
		"a panic of who is told": {
			calls: []watch{{batches: []backend.Batch{token("a"), change}}, {from: "a", err: backend.ErrClosed}},
			fail:  map[string]error{"1 apply 1": nil},
			want:  []string{"begin", "apply 0", "apply 1", "lost: fob: follow the feed: " + errs.ErrPanicked.Error() + ": told"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []string
				times := map[string]int{}
				tell := func(what string) error {
					told = append(told, what)
					times[what]++
					err, fails := c.fail[fmt.Sprint(times[what], " ", what)]
					if fails && err == nil {
						panic("told")
					}
					return err
				}
				s := &script{t: t, calls: c.calls, began: time.Now()}
				f := feed.Follower{
					Watcher: s,
					Begin:   func(context.Context) error { return tell("begin") },
					Apply: func(_ context.Context, changes []backend.Change) error {
						return tell(fmt.Sprint("apply ", len(changes)))
					},
					Proved: func(asOf time.Time) { _ = tell(fmt.Sprint("proved ", asOf.Unix())) },
					Lost:   func(err error) { _ = tell("lost: " + err.Error()) },
				}
				f.Run(t.Context())
				require.Equal(t, c.want, told)
				require.Len(t, s.at, len(c.calls))
			})
		})
	}
}

func TestAFeedThatIsLostIsTriedMoreAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{t: t, calls: []watch{{}, {}, {}, {batches: []backend.Batch{{}}}, {}, {}}, began: time.Now()}
		lost := 0
		f := feed.Follower{
			Watcher: s,
			Begin:   func(context.Context) error { return nil },
			Apply:   func(context.Context, []backend.Change) error { return nil },
			Lost: func(error) {
				if lost++; lost == len(s.calls) {
					cancel()
				}
			},
		}
		f.Run(ctx)
		require.Len(t, s.at, len(s.calls), "it ends with its context")
		for i, least := range []time.Duration{50, 100, 200, 50, 100} { // the batch of the fourth begins anew
			pause := s.at[i+1] - s.at[i]
			require.GreaterOrEqual(t, pause, least*time.Millisecond, "%d", i)
			require.Less(t, pause, least*time.Millisecond*3/2, "%d", i)
		}
	})
}
