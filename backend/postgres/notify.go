package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// notifyEvery is the shortest time between two NOTIFYs of one process: many
	// writes share one, and those who listen are not kept busy.
	notifyEvery = 5 * time.Millisecond
	// notifyPatience bounds the sending of one, and so how long Close waits for it.
	notifyPatience = time.Second
	// listenPatience bounds the wait for a connection to listen on.
	listenPatience = 5 * time.Second
	// listenAgain is the pause after a connection to listen on was lost.
	listenAgain = time.Second
)

// announce tells this process's Watches, and by way of the server those of
// others, that there is a change. It waits for nobody. The change is committed:
// a NOTIFY inside its transaction would make all commits of the database take
// turns.
func (s *Store) announce() {
	s.changed.Ring()
	select {
	case s.unsent <- struct{}{}:
	default: // one is waiting to be sent already
	}
}

// notify is the goroutine that sends NOTIFY, once for all changes since the last.
// It is a hint: what is lost, the next poll finds.
func (s *Store) notify() {
	for {
		select {
		case <-s.unsent:
			s.send()
		case <-s.life.Done():
			select {
			case <-s.unsent:
				s.send() // what the last write of a short-lived process wants to tell
			default:
			}
			return
		}
		sleepFor(s.life, notifyEvery)
	}
}

func (s *Store) send() {
	ctx, cancel := context.WithTimeout(context.Background(), notifyPatience)
	defer cancel()
	if _, err := s.pool.Exec(ctx, "SELECT pg_notify($1::text, '')", s.opts.channel()); err != nil {
		s.opts.Logger.Debug("postgres: NOTIFY failed, others will see the change when they poll", "error", err)
	}
}

// listen wakes a Watch for each NOTIFY until ctx ends. Where it cannot, the Watch
// polls.
func (s *Store) listen(ctx context.Context, wake chan<- struct{}) {
	for {
		err := s.listenOnce(ctx, wake)
		if ctx.Err() != nil {
			return
		}
		s.deaf.Do(func() {
			s.opts.Logger.Warn("postgres: cannot listen for changes, polling instead", "every", s.opts.PollInterval, "error", err)
		})
		if errors.Is(err, errPooler) {
			return
		}
		if sleepFor(ctx, listenAgain); ctx.Err() != nil {
			return
		}
	}
}

var errPooler = errors.New("there is a pooler between here and the server, which may give each statement another session")

// listenOnce takes a connection out of the pool for good: kept, it would count
// against the pool's size, and a caller that closes the pool first would wait
// for it.
func (s *Store) listenOnce(ctx context.Context, wake chan<- struct{}) error {
	patient, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	pooled, err := s.pool.Acquire(patient)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), notifyPatience)
		defer cancel()
		_ = conn.Close(ctx) // there is nothing to lose on it
	}()
	// A pooler makes up the process number that it tells its clients.
	var pid uint32
	if err := conn.QueryRow(patient, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	if pid != conn.PgConn().PID() {
		return errPooler
	}
	if _, err := conn.Exec(patient, "LISTEN "+pgx.Identifier{s.opts.channel()}.Sanitize()); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
