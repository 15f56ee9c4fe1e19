package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
)

// keepChanges is how many changes the feed remembers.
const keepChanges = 100_000

func (s *Store) keep() uint64 {
	if s.hooks.keep != 0 {
		return s.hooks.keep
	}
	return keepChanges
}

// trim removes what the feed need no longer remember. Each transaction trims
// about as much as it adds.
func (b *batch) trim(keep uint64) error {
	if b.seq <= keep {
		return nil
	}
	_, err := b.c.run(sqlTrimChanges, int64(b.seq-keep))
	return err
}

// place is a place in the feed: after the change seq of a history in which that
// change was made in the transaction nonce. A file restored from a backup and
// written to again may have a change seq; it has another nonce.
type place struct {
	seq   uint64
	nonce int64
}

// tokenFormat is the first byte of a Token.
const tokenFormat = 1

func (p place) token() backend.Token {
	t := binary.BigEndian.AppendUint64(backend.Token{tokenFormat}, p.seq)
	return binary.BigEndian.AppendUint64(t, uint64(p.nonce))
}

// parse is the place of a Token; of one that is not ours, a place that no feed has.
func parse(t backend.Token) place {
	if len(t) != 17 || t[0] != tokenFormat {
		return place{}
	}
	return place{binary.BigEndian.Uint64(t[1:]), int64(binary.BigEndian.Uint64(t[9:]))}
}

// announce wakes every Watch of this Store. It never waits for one.
func (s *Store) announce() {
	s.newsMu.Lock()
	defer s.newsMu.Unlock()
	close(s.news)
	s.news = make(chan struct{})
}

func (s *Store) nextNews() <-chan struct{} {
	s.newsMu.Lock()
	defer s.newsMu.Unlock()
	return s.news
}

// poll is the goroutine that notices what other connections have committed, while
// somebody watches. It only makes watchers look sooner: what they deliver, and
// what it proves, is what they read themselves.
func (s *Store) poll(c *conn) {
	defer func() {
		if c != nil {
			c.discard()
		}
	}()
	tick := time.NewTicker(s.opts.PollEvery)
	defer tick.Stop()
	var last int64
	for {
		if s.watchers.Load() == 0 {
			tick.Stop()
			select {
			case <-s.watched:
				tick.Reset(s.opts.PollEvery)
			case <-s.stop:
				return
			}
		}
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		var err error
		if c == nil {
			c, err = dial(context.Background(), s.db, forReading)
		}
		var version int64
		if err == nil {
			err = c.row(sqlDataVersion, nil, &version)
		}
		switch {
		case err == nil && version != last:
			last = version
			s.announce()
		case broken(err): // the watchers' own clock goes on
			if c != nil {
				c.discard()
				c = nil
			}
		}
	}
}

// maxChanges bounds one Batch of the feed.
const maxChanges = 10_000

// Watch implements backend.Watcher. It runs in its caller's goroutine and reads
// the changes from the file, so that a slow fn holds up nobody and a token outlives
// a restart. A token of another file, of one that was since restored from an older
// copy, or too old, gets a Reset; so does a Watch under which that happens.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	at := parse(from)
	if from == nil {
		if err := s.newest(ctx, &at); err != nil {
			return err
		}
	}
	s.watchers.Add(1)
	defer s.watchers.Add(-1)
	select {
	case s.watched <- struct{}{}:
	default:
	}
	var proven time.Time
	tick := time.NewTicker(backend.HeartbeatEvery / 2)
	defer tick.Stop()
	for {
		news := s.nextNews() // before the file is read: nothing falls between
		b, next, err := s.since(ctx, at, proven)
		if err != nil {
			return err
		}
		more := b.AsOf.Equal(proven)
		at, proven = next, b.AsOf
		if err := fn(b); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sqlite: watch: %w", ctx.Err())
		case <-s.stop:
			return backend.ErrClosed
		case <-news:
		case <-tick.C:
		}
	}
}

// newest finds the end of the feed.
func (s *Store) newest(ctx context.Context, at *place) error {
	return s.read(ctx, "watch", func(c *conn) error {
		var seq int64
		err := c.row(sqlNewest, nil, &seq, &at.nonce)
		if errors.Is(err, sql.ErrNoRows) { // somebody emptied it: any change is a Reset
			*at = place{}
			return nil
		}
		at.seq = uint64(seq)
		return err
	})
}

// since makes the Batch of what comes after a place. Where the place itself is not
// in the feed any more, or not any longer the same, history is lost.
func (s *Store) since(ctx context.Context, at place, proven time.Time) (backend.Batch, place, error) {
	b := backend.Batch{AsOf: time.Now()} // before the file is read: a proof must not claim more than it saw
	next := place{}
	full := false
	err := s.read(ctx, "watch", func(c *conn) error {
		b.Changes, b.Reset, next, full = nil, false, place{}, false
		latest := make(map[backend.ID]int)
		n := 0
		err := c.rows(sqlChanges, []any{int64(at.seq), maxChanges + 1}, func(rows *sql.Rows) error {
			var seq, nonce int64
			var raw sql.RawBytes
			if err := rows.Scan(&seq, &raw, &nonce); err != nil {
				return err
			}
			if len(raw) != len(backend.ID{}) {
				return fmt.Errorf("%w: change %d", backend.ErrCorrupt, seq)
			}
			p := place{uint64(seq), nonce}
			if n++; n == 1 {
				if p != at {
					return errLost
				}
				next = p
				return nil
			}
			if n > maxChanges {
				full = true
				return nil
			}
			next = p
			id := backend.ID(raw)
			if i, seen := latest[id]; seen {
				b.Changes[i].Version = p.seq
			} else {
				latest[id] = len(b.Changes)
				b.Changes = append(b.Changes, backend.Change{ID: id, Version: p.seq})
			}
			return nil
		})
		if err == nil && n == 0 || errors.Is(err, errLost) {
			b.Changes, b.Reset = nil, true
			return nil
		}
		return err
	})
	if err == nil && b.Reset {
		err = s.newest(ctx, &next)
		// What it then goes on from is later than what was read: it proves nothing less.
	}
	if err != nil {
		return backend.Batch{}, at, err
	}
	if full {
		b.AsOf = proven // more is to come: this batch proves no more than the last
	}
	b.Token = next.token()
	return b, next, nil
}

// errLost ends the reading of a feed that does not go on from where we were.
var errLost = errors.New("sqlite: the feed has lost its history")
