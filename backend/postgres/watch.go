package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/fobkit/fob/backend/internal/outbox"
	"github.com/jackc/pgx/v5"
)

const (
	// busyEvery is the longest time between two polls while changes are announced. They
	// are delivered as they are announced; a poll proves that none was missed.
	busyEvery = 200 * time.Millisecond
	// wakeEvery is the shortest time between two polls, however often a Watch is woken.
	wakeEvery = 5 * time.Millisecond
	// pollPatience bounds one poll: a server that hangs is asked again on another
	// connection. linePatience bounds one on the connection that listens, which may have
	// died without a word: others are tried while what is in memory is still believed.
	pollPatience = 2 * time.Second
	linePatience = time.Second
	// outage is how long a Watch goes on when polls fail. It proves nothing
	// meanwhile, so that its consumer trusts nothing either.
	outage      = 10 * time.Second
	outagePause = 200 * time.Millisecond
	// maxWaiting is how many changed records wait for a slow consumer.
	maxWaiting = 100_000
)

// Watch implements backend.Watcher. It takes one connection out of the pool, and on it
// both hears what others announce and asks, as often as the context says (see
// backend.WithProofEvery), for what it has not heard. So it cannot be deaf without
// noticing: a connection on which nothing arrives gives no answer either, and after a
// second others are asked. Without such a connection, or behind a pooler, it polls every
// Options.PollInterval.
//
// What was announced is delivered at once, and again with the poll that finds it: an
// announcement is a hint, and hides nothing.
//
// It goes on through an outage of up to ten seconds, without a Batch, and returns the
// error of a longer one. A goroutine follows the server, and fn runs in the caller's.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.life, cancel)
	f := &follower{store: s, at: place{since: fullSnapshot()}, box: outbox.New(from, maxWaiting, maxChanges), every: news.ProofPause(ctx)}
	if from != nil {
		f.resume(from)
	} else {
		f.known = true
	}
	var ended error // read after done
	done := make(chan struct{})
	s.done.Go(func() {
		defer close(done)
		ended = f.follow(within, from == nil)
	})
	s.calls.Leave()
	defer func() {
		unhook()
		cancel()
		<-done
	}()
	for {
		select {
		case <-f.box.Ready():
			if err := fn(f.box.Take()); err != nil {
				return err
			}
		case <-done:
			switch {
			case s.life.Err() != nil:
				return backend.ErrClosed
			case ctx.Err() != nil:
				return fmt.Errorf("postgres: watch: %w", ctx.Err())
			}
			return ended
		}
	}
}

// follow asks and listens until ctx ends, or an outage lasts too long.
func (f *follower) follow(ctx context.Context, fresh bool) error {
	s := f.store
	ctx, cancel := context.WithCancel(ctx)
	dial := s.newDialler(ctx)
	defer dial.wait()
	defer cancel()
	var on *line // nil: deaf
	defer func() { on.hangUp() }()
	dial.want()
	hangUp := func() {
		on.hangUp()
		on = nil
		dial.want()
	}
	var good time.Time // the last poll that succeeded
	for ctx.Err() == nil {
		changed := s.changed.Next() // taken before the poll, so that no change between the two is missed
		asked := time.Now()
		var by asker = pooled{s}
		if on != nil {
			by = on
		}
		b, more, err := f.next(ctx, by, fresh && good.IsZero())
		if err != nil && on != nil && ctx.Err() == nil {
			s.opts.Logger.Debug("postgres: the connection of the feed was lost", "error", err)
			hangUp()
			continue // with a connection of the pool, which tells whether it is the server
		}
		pause := s.opts.PollInterval
		switch {
		case err == nil:
			good = time.Now()
			f.deliver(b)
		case ctx.Err() != nil:
			return nil
		case good.IsZero() || isLasting(err) || !errors.Is(err, backend.ErrUnavailable) || time.Since(good) > s.outage:
			return err
		default:
			s.opts.Logger.Debug("postgres: a poll of the feed failed", "error", err)
			pause = outagePause
		}
		switch {
		case more:
		case on == nil:
			on = f.wait(ctx, dial, changed, asked, pause)
		default:
			if err := f.hear(ctx, on, asked, len(b.Changes) > 0); err != nil && ctx.Err() == nil {
				s.opts.Logger.Debug("postgres: the connection of the feed was lost", "error", err)
				hangUp()
			}
		}
	}
	return nil
}

// deliver puts what a poll has found into the outbox.
func (f *follower) deliver(b backend.Batch) {
	if b.Reset {
		f.box.Reset(b.Token, b.AsOf)
	}
	f.box.Prove(b.Changes, b.Token, b.AsOf)
}

// wait waits until the next poll is due, for a Watch that is deaf. It returns a line on
// which it is not, as soon as there is one.
func (f *follower) wait(ctx context.Context, dial *dialler, changed <-chan struct{}, asked time.Time, pause time.Duration) *line {
	timer := time.NewTimer(time.Until(asked.Add(pause)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case on := <-dial.lines:
		return on // and polls at once: what was changed meanwhile was announced to nobody
	case <-changed:
		sleepFor(ctx, max(0, time.Until(asked.Add(wakeEvery))))
	}
	return nil
}

// hear delivers what is announced until the next poll is due. It fails if the line is lost.
func (f *follower) hear(ctx context.Context, on *line, asked time.Time, busy bool) error {
	for ctx.Err() == nil {
		due := asked.Add(f.every)
		if busy {
			due = asked.Add(min(f.every, busyEvery))
		}
		payload, heard, err := on.listen(ctx, due)
		if err != nil || !heard {
			return err
		}
		rows, ok := readAnnouncement(*f.store.instance.Load(), payload)
		if !ok { // it says that there are changes, and does not name them
			sleepFor(ctx, max(0, time.Until(asked.Add(wakeEvery))))
			return nil
		}
		if told := f.news(rows); len(told) > 0 {
			busy = true
			f.box.Add(told)
		}
	}
	return nil
}

// pooled asks on any connection of the pool.
type pooled struct{ *Store }

func (p pooled) ask(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	return p.run(ctx, "watch", stageReading, pollPatience, do)
}
