package postgres

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// listenPatience bounds the wait for a connection to listen on.
	listenPatience = 5 * time.Second
	// listenAgain is the pause after no connection to listen on could be had, and the
	// shortest time between two.
	listenAgain = time.Second
	// hangUpPatience bounds the goodbye on such a connection.
	hangUpPatience = time.Second
)

// line is the connection of one Watch, on which it listens and polls. It was taken out of
// the pool for good: kept, it would count against the pool's size, and a caller that
// closes the pool first would wait for it.
type line struct {
	conn   *pgx.Conn
	unhook func() bool
}

var errPooler = errors.New("there is a pooler between here and the server, which may give each statement another session")

// dialler makes lines for one Watch, one whenever one is wanted. A line that nobody reads
// would fill up the server's queue of announcements, so none is kept in store.
type dialler struct {
	wanted chan struct{}
	lines  chan *line
	done   chan struct{}
}

// newDialler makes a dialler that works until ctx ends.
func (s *Store) newDialler(ctx context.Context) *dialler {
	d := &dialler{make(chan struct{}, 1), make(chan *line), make(chan struct{})}
	s.done.Go(func() {
		defer close(d.done)
		for last := (time.Time{}); ; last = time.Now() {
			select {
			case <-ctx.Done():
				return
			case <-d.wanted:
			}
			sleepFor(ctx, max(0, time.Until(last.Add(listenAgain)))) // the last one may have died at once
			l := s.dial(ctx)
			if l == nil {
				return
			}
			select {
			case d.lines <- l:
			case <-ctx.Done():
				l.hangUp()
				return
			}
		}
	})
	return d
}

// want asks for a line. Call it once for each.
func (d *dialler) want() { d.wanted <- struct{}{} }

// wait waits until the dialler has ended.
func (d *dialler) wait() { <-d.done }

// dial tries until it has a line. It returns nil if there will be none.
func (s *Store) dial(ctx context.Context) *line {
	for {
		l, err := s.newLine(ctx)
		if err == nil {
			return l
		}
		if ctx.Err() != nil {
			return nil
		}
		s.deaf.Do(func() {
			s.opts.Logger.Warn("postgres: cannot listen for changes, polling instead", "every", s.opts.PollInterval, "error", err)
		})
		if errors.Is(err, errPooler) {
			return nil
		}
		if sleepFor(ctx, listenAgain); ctx.Err() != nil {
			return nil
		}
	}
}

// newLine takes a connection out of the pool, and listens on it. When ctx ends, so does
// listening.
func (s *Store) newLine(ctx context.Context) (*line, error) {
	patient, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	taken, err := s.pool.Acquire(patient)
	if err != nil {
		return nil, err
	}
	l := &line{conn: taken.Hijack()}
	socket := l.conn.PgConn().Conn()
	l.unhook = context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	// A pooler makes up the process number that it tells its clients.
	var pid uint32
	err = l.conn.QueryRow(patient, "SELECT pg_backend_pid()").Scan(&pid)
	if err == nil && pid != l.conn.PgConn().PID() {
		err = errPooler
	}
	if err == nil {
		_, err = l.conn.Exec(patient, "LISTEN "+pgx.Identifier{s.opts.channel()}.Sanitize())
	}
	if err != nil {
		l.hangUp()
		return nil, err
	}
	return l, nil
}

// hangUp closes the connection. On one that was lost it does not wait.
func (l *line) hangUp() {
	if l == nil {
		return
	}
	l.unhook()
	ctx, cancel := context.WithTimeout(context.Background(), hangUpPatience)
	defer cancel()
	_ = l.conn.Close(ctx) // there is nothing to lose on it
}

// ask implements asker.
func (l *line) ask(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	limited, cancel := context.WithTimeout(ctx, linePatience)
	defer cancel()
	err := do(limited, l.conn)
	if err != nil {
		err, _ = verdict(ctx, "watch", stageReading, err)
	}
	return err
}

// listen waits for what others announce, until an instant or the end of ctx: then heard is
// false. It fails if the line is lost. The payload is empty where the caller's pool has a
// handler of its own for notifications.
//
// It sets the deadline itself: pgx would start a goroutine for each announcement, and where
// the caller's pool is told to send a cancel request when a context ends, it would first
// wait for the effect of that.
func (l *line) listen(ctx context.Context, until time.Time) (payload string, heard bool, err error) {
	if !time.Now().Before(until) {
		return "", false, nil
	}
	socket := l.conn.PgConn().Conn()
	if err := socket.SetReadDeadline(until); err != nil {
		return "", false, err
	}
	if ctx.Err() != nil { // the deadline of newLine may have come before this one
		return "", false, nil
	}
	said, err := l.conn.WaitForNotification(context.Background())
	heard = err == nil
	if errors.Is(err, os.ErrDeadlineExceeded) && !l.conn.IsClosed() {
		err = nil
	}
	if err == nil {
		err = socket.SetReadDeadline(time.Time{})
	}
	if said != nil {
		payload = said.Payload
	}
	return payload, heard, err
}
