package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// listenPatience bounds the wait for a connection to listen on.
	listenPatience = 5 * time.Second
	// listenAgain is the pause after no connection to listen on could be had.
	listenAgain = time.Second
	// hangUpPatience bounds the goodbye on such a connection.
	hangUpPatience = time.Second
)

// line is the connection of one Watch, on which it listens and polls. It was taken out of
// the pool for good: kept, it would count against the pool's size, and a caller that
// closes the pool first would wait for it.
type line struct{ conn *pgx.Conn }

var errPooler = errors.New("there is a pooler between here and the server, which may give each statement another session")

// dial offers a line whenever one is wanted, until ctx ends. The function that it returns
// waits for that.
func (s *Store) dial(ctx context.Context, lines chan<- *line) (wait func()) {
	done := make(chan struct{})
	s.done.Go(func() {
		defer close(done)
		for ctx.Err() == nil {
			l, err := s.newLine(ctx)
			if err == nil {
				select {
				case lines <- l:
				case <-ctx.Done():
					l.hangUp()
				}
				continue
			}
			if ctx.Err() != nil {
				return
			}
			s.deaf.Do(func() {
				s.opts.Logger.Warn("postgres: cannot listen for changes, polling instead", "every", s.opts.PollInterval, "error", err)
			})
			if errors.Is(err, errPooler) {
				return
			}
			sleepFor(ctx, listenAgain)
		}
	})
	return func() { <-done }
}

// newLine takes a connection out of the pool, and listens on it.
func (s *Store) newLine(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	taken, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	l := &line{taken.Hijack()}
	// A pooler makes up the process number that it tells its clients.
	var pid uint32
	err = l.conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid)
	if err == nil && pid != l.conn.PgConn().PID() {
		err = errPooler
	}
	if err == nil {
		_, err = l.conn.Exec(ctx, "LISTEN "+pgx.Identifier{s.opts.channel()}.Sanitize())
	}
	if err != nil {
		l.hangUp()
		return nil, err
	}
	return l, nil
}

func (l *line) hangUp() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), hangUpPatience)
	defer cancel()
	_ = l.conn.Close(ctx) // there is nothing to lose on it
}

// ask implements asker.
func (l *line) ask(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	limited, cancel := context.WithTimeout(ctx, pollPatience)
	defer cancel()
	err := do(limited, l.conn)
	if err != nil {
		err, _ = verdict(ctx, "watch", stageReading, err)
	}
	return err
}

// listen waits for what others announce, until an instant: then the error is
// context.DeadlineExceeded. unknown says that they announced changes that they did not
// name.
func (l *line) listen(ctx context.Context, instance string, until time.Time) (rows []row, unknown bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	said, err := l.conn.WaitForNotification(ctx)
	if err != nil {
		if ctx.Err() != nil && !l.conn.IsClosed() {
			err = ctx.Err()
		}
		return nil, false, err
	}
	rows, ok := readAnnouncement(instance, said.Payload)
	return rows, !ok, nil
}
