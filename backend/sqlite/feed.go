package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/news"
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

// parsePlace is the place of a Token; of one that is not ours, a place that no feed has.
func parsePlace(t backend.Token) place {
	if len(t) != 17 || t[0] != tokenFormat {
		return place{}
	}
	return place{binary.BigEndian.Uint64(t[1:]), int64(binary.BigEndian.Uint64(t[9:]))}
}

// maxChanges bounds one Batch of the feed.
const maxChanges = 10_000

func (s *Store) atMost() int {
	if s.hooks.batch != 0 {
		return s.hooks.batch
	}
	return maxChanges
}

// Watch implements backend.Watcher. It runs in its caller's goroutine, on a
// connection of its own, and reads the changes from the file, so that a slow fn
// holds up nobody and a token outlives a restart. A token of another file, of one
// that was since restored from an older copy, or too old, gets a Reset; so does a
// Watch under which that happens. An error of the database ends it.
//
// It looks at once after a commit of this Store, soon after the file's log was written to
// by another one, and else as often as a proof is wanted (see backend.WithProofEvery).
// Where the system does not tell of writes (it does on Linux), or where a look finds a
// change of which it did not tell, it looks every Options.PollEvery.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	f := &follower{s: s, at: parsePlace(from), pace: pace{poll: s.opts.PollEvery, proof: news.ProofPause(ctx)}}
	if err := f.open(ctx, from == nil); err != nil {
		return err
	}
	defer s.unwatch(f.c)
	written := f.ear.written()
	f.pace.deaf = written == nil
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		changed := s.changed.Next() // taken before the file is looked at, so that no change between the two is missed
		b, due, err := f.next(ctx)
		if err != nil {
			return err
		}
		if due {
			if err := fn(b); err != nil {
				return err
			}
			if f.more {
				continue
			}
		}
		tick.Reset(f.pace.next(time.Now(), f.proven))
		select {
		case <-ctx.Done():
			return fmt.Errorf("sqlite: watch: %w", ctx.Err())
		case <-s.stop:
			return backend.ErrClosed
		case <-changed:
		case _, more := <-written:
			if !more {
				written, f.pace.deaf = nil, true
			}
			f.pace.heard(time.Now())
		case <-tick.C:
		}
	}
}

// watch notes the connection and the listener of a Watch, for Close: that does not wait for
// a Watch whose fn takes long, and leaves no file open all the same.
func (s *Store) watch(c *conn, ear *listener) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	s.watching[c] = ear
}

// unwatch closes the connection of a Watch, if Close has not.
func (s *Store) unwatch(c *conn) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	if ear, open := s.watching[c]; open {
		delete(s.watching, c)
		c.discard()
		ear.close()
	}
}

// unwatchAll is for Close, when no Watch uses its connection any more: each does so as a
// call that is under way.
func (s *Store) unwatchAll() {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	for c, ear := range s.watching {
		delete(s.watching, c)
		c.discard()
		ear.close()
	}
}

// follower is the state of one Watch.
type follower struct {
	s       *Store
	c       *conn
	ear     *listener
	pace    pace
	at      place     // everything up to here was delivered
	version int64     // of the data, on this connection, before at was read; 0 before the first time
	proven  time.Time // AsOf of the last Batch
	more    bool      // the last Batch did not hold everything
}

// open takes the connection, and finds the end of the feed if that is where to
// begin.
func (f *follower) open(ctx context.Context, newest bool) error {
	if err := f.s.calls.Enter(ctx); err != nil {
		return err
	}
	defer f.s.calls.Leave()
	var err error
	if f.c, err = f.s.dial(ctx, forReading); err != nil {
		return contractError("watch", phaseReading, err)
	}
	f.ear = listen(f.s.log, f.s.opts.PollEvery)
	f.s.watch(f.c, f.ear)
	if !newest {
		return nil
	}
	if err = f.try(ctx, func() error { return f.newest(&f.at) }); err != nil {
		f.s.unwatch(f.c)
	}
	return err
}

// try runs do, again while another connection is in the way.
func (f *follower) try(ctx context.Context, do func() error) error {
	return contractError("watch", phaseReading, waitWhileBusy(ctx, nil, time.Now().Add(f.s.opts.BusyTimeout), do))
}

// newest finds the end of the feed.
func (f *follower) newest(at *place) error {
	var seq int64
	err := f.c.row(sqlNewest, nil, &seq, &at.nonce)
	if errors.Is(err, sql.ErrNoRows) { // somebody emptied it: any change is a Reset
		*at = place{}
		return nil
	}
	at.seq = uint64(seq)
	return err
}

// next looks at the file. What it finds is due if there is something new, or if the
// last Batch is a while ago.
func (f *follower) next(ctx context.Context) (b backend.Batch, due bool, err error) {
	if err := f.s.calls.Enter(ctx); err != nil {
		return b, false, err
	}
	defer f.s.calls.Leave()
	err = f.try(ctx, func() error {
		if f.s.hooks.asked != nil {
			f.s.hooks.asked()
		}
		b = backend.Batch{AsOf: time.Now()} // before the file is looked at: a proof must not claim more than it saw
		var version int64
		if err := f.c.row(sqlDataVersion, nil, &version); err != nil {
			return err
		}
		if version == f.version && !f.more { // nobody has committed anything since at was read
			due = b.AsOf.Sub(f.proven) >= f.pace.proof
			return nil
		}
		if f.version != 0 {
			f.pace.found(b.AsOf)
		}
		if err := f.since(&b); err != nil {
			return err
		}
		f.version, due = version, true
		return nil
	})
	if err != nil {
		return b, false, err
	}
	if f.more {
		b.AsOf = f.proven // more is to come: this batch proves no more than the last
	}
	if due {
		f.proven = b.AsOf
		b.Token = f.at.token()
	}
	return b, due, nil
}

// since reads what comes after the place where the feed is. Where the place itself
// is not there any more, or is not any longer the same, history is lost.
func (f *follower) since(b *backend.Batch) error {
	next, most := place{}, f.s.atMost()
	latest := make(map[backend.ID]int)
	n := 0
	err := f.c.rows(sqlChanges, []any{int64(f.at.seq), most + 2}, func(rows *sql.Rows) error {
		var seq, nonce int64
		var raw sql.RawBytes
		if err := rows.Scan(&seq, &raw, &nonce); err != nil {
			return err
		}
		if len(raw) != len(backend.ID{}) {
			return fmt.Errorf("%w: change %d", backend.ErrCorrupt, seq)
		}
		p := place{uint64(seq), nonce}
		if n++; n == 1 && p != f.at {
			return errLost
		}
		if n > most+1 { // there are more
			return nil
		}
		next = p
		if n == 1 {
			return nil
		}
		id := backend.ID(raw)
		if i, seen := latest[id]; seen {
			b.Changes[i].Version = p.seq
		} else {
			latest[id] = len(b.Changes)
			b.Changes = append(b.Changes, backend.Change{ID: id, Version: p.seq})
		}
		return nil
	})
	f.more = false
	switch {
	case err == nil && n == 0, errors.Is(err, errLost):
		// What is read now is later than what AsOf claims.
		b.Changes, b.Reset = nil, true
		if err := f.newest(&next); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		f.more = n > most+1
	}
	f.at = next
	if f.s.hooks.looked != nil {
		f.s.hooks.looked()
	}
	return nil
}

// errLost ends the reading of a feed that does not go on from where we were.
var errLost = errors.New("sqlite: the feed has lost its history")
