package fob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// marks are the records that end credentials from outside: of single tokens and
// families, of what was issued before an instant, and the epochs of subjects. They
// are few, since only what was revoked has one, and follow the store's feed: while
// the feed is alive, nothing has to be read from the store to know that a token is
// good.
type marks struct {
	follows bool // there is a feed; without one nothing is kept here
	forget  func(...backend.ID)

	mu  sync.RWMutex // guards all
	all map[record.ID]mark
}

// newMarks makes a set without marks. follows says that there is a feed; forget ends what
// was made from a mark.
func newMarks(follows bool, forget func(...backend.ID)) *marks {
	return &marks{follows: follows, forget: forget, all: make(map[record.ID]mark)}
}

// mark is what one record says. All of its numbers only rise.
type mark struct {
	// epoch is that of a subject or an issuer, with which what is issued is stamped. What
	// a subject has under an older one is revoked.
	epoch uint64
	// ends is, of an issuer, the epoch from which on what is stamped is not revoked.
	ends uint64
	// before is, of a single token or family, forever. Of an issuer: what is stamped
	// with less than epoch, and was issued before this, is revoked.
	before int64
	reason string
	// bad is why the record cannot be read. What it is about could not be checked then;
	// all else does not depend on it.
	bad error
}

// endsToken reports whether the mark of a token, of a family or of an issuer revokes
// what was stamped with the issuer's epoch and issued at an instant. Time decides
// nothing but "issued before": what was issued knowing of the mark was issued after it,
// however late the clock of its issuer is.
func (k *mark) endsToken(stamp uint64, issuedAt int64) bool {
	return k.before == clock.Forever || stamp < k.ends || stamp < k.epoch && issuedAt < k.before
}

// join returns a mark that says what either does.
func (k mark) join(o mark) mark {
	k.epoch, k.ends, k.before = max(k.epoch, o.epoch), max(k.ends, o.ends), max(k.before, o.before)
	return k
}

// covers reports whether k says all that o does.
func (k *mark) covers(o *mark) bool {
	return k.epoch >= o.epoch && k.ends >= o.ends && k.before >= o.before
}

// get is the zero mark where nothing is known.
func (s *marks) get(id record.ID) mark {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[id]
}

// raise notes a mark, if it is news: an older state never replaces a newer one, since
// epochs and instants only rise. What was made from an older one is forgotten before
// anybody can see the new one and tell of it.
func (s *marks) raise(id record.ID, to mark) {
	if !s.follows {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[id]; old.bad == nil {
		if old.covers(&to) {
			return
		}
		to = to.join(old) // what either says is revoked stays so
	}
	s.all[id] = to
	s.forget(id)
}

// learn notes a mark, and then forgets every answer that was made from an older one.
// The two are one step, in this order: an answer that is made between them is made
// from the new mark, or is forgotten. It forgets also where the mark is no news, for
// the store may know of it before the feed has told.
func (m *Manager) learn(id record.ID, to mark) {
	m.marks.raise(id, to)
	m.forget(id)
}

// unreadable notes a mark whose record cannot be read. It is one problem among those of
// Health, and ends with the next record that can.
func (m *Manager) unreadable(id record.ID, err error) mark {
	bad := mark{bad: fmt.Errorf("record %x: %w", id, err)}
	m.problem(nameOfMark(id), bad.bad)
	return bad
}

// recordProblem begins the names of problems that are about one record.
const recordProblem = "record "

func nameOfMark(id record.ID) string { return fmt.Sprintf(recordProblem+"%x", id) }

// spoil replaces what is known of a mark by what says that it cannot be read.
func (s *marks) spoil(id record.ID, bad mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[id] = bad
}

// replace takes in all marks as they were read anew. mended is called for each that could
// not be read before and can be now.
func (s *marks) replace(all map[record.ID]mark, mended func(record.ID)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, own := range s.all {
		// What this process has just written may have come after its page was read.
		read := all[id]
		if own.bad != nil && read.bad == nil {
			mended(id)
		}
		if read.bad == nil && !read.covers(&own) {
			all[id] = own.join(read)
		}
	}
	s.all = all
}

// drop forgets a mark that was purged, if it is still what it was before that was found:
// this Manager may have written it anew.
func (s *marks) drop(id record.ID, was mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[id] == was {
		delete(s.all, id)
	}
}

// isMark reports whether an ID is that of a record that marks hold: the first
// byte of a record's ID that is no credential's is its kind.
func isMark(id backend.ID) bool {
	return backend.Kind(id[0]) == record.Mark || backend.Kind(id[0]) == record.Subject
}

// decodeEpoch reads the record of a subject: only its epoch is set, and the reason.
func decodeEpoch(rec *backend.Record) (mark, error) {
	r, err := record.Open(rec, record.Subject)
	if err != nil {
		return mark{}, err
	}
	var out mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldEpoch:
			out.epoch = r.Number(v)
		case record.FieldReason:
			out.reason = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || out.epoch == 0 || !record.KnownSubject(rec.Owner) {
		return mark{}, record.Corrupt(rec, "epoch")
	}
	return out, nil
}

// decodeMark reads the record of a mark or of a subject.
func decodeMark(rec *backend.Record) (mark, error) {
	if rec.Kind == record.Subject {
		return decodeEpoch(rec)
	}
	r, err := record.Open(rec, record.Mark)
	if err != nil {
		return mark{}, err
	}
	var out mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldReason:
			out.reason = v
		case record.FieldEpoch:
			out.epoch = r.Number(v)
		case record.FieldBefore:
			out.before = r.Millis(v)
		case record.FieldEnds:
			out.ends = r.Number(v)
		default:
			r.Bad = true
		}
	}
	if out.epoch == 0 && out.before != 0 && out.before != clock.Forever {
		out.epoch = 1 // written before there were epochs: what has no stamp is older than that
	}
	if r.Bad || out.before == 0 && out.ends == 0 || out.ends > out.epoch || (out.before == clock.Forever) != (out.epoch == 0) {
		return mark{}, record.Corrupt(rec, "fields")
	}
	return out, nil
}

// encode writes a mark that is no subject's.
func (k *mark) encode(rec *backend.Record) {
	w := record.NewBody()
	w.Text(record.FieldReason, k.reason)
	w.Number(record.FieldEpoch, k.epoch)
	w.Number(record.FieldBefore, uint64(k.before))
	w.Number(record.FieldEnds, k.ends)
	w.Seal(rec)
}

// readMark reads one mark from the store; the zero mark if there is none.
func (m *Manager) readMark(ctx context.Context, id record.ID) (mark, error) {
	found, _, err := m.readMarkRecord(ctx, id)
	return found, err
}

// readMarkRecord is readMark, with when the record was made.
func (m *Manager) readMarkRecord(ctx context.Context, id record.ID) (found mark, created int64, err error) {
	rec, err := m.store.Get(ctx, id)
	if errors.Is(err, backend.ErrNotFound) {
		return mark{}, 0, nil
	}
	if err != nil {
		return mark{}, 0, err
	}
	found, err = decodeMark(&rec)
	return found, rec.Created, err
}

// Pauses between two tries to follow a feed that failed. Each is up to half as long
// again, so that many processes do not come back at the same instant.
const (
	followPause    = 50 * time.Millisecond
	followPauseMax = 2 * time.Second
)

// followFeed keeps what the Manager remembers up with the store until ctx ends.
// While it cannot, that grows old, and is read again from the store when it is
// asked for.
func (m *Manager) followFeed(ctx context.Context, feed backend.Watcher, lister backend.Lister) {
	pause := followPause
	m.tryJoin(ctx)
	var token backend.Token // where to go on; nil: from the beginning, with everything read anew
	for ctx.Err() == nil {
		batch := func(b backend.Batch) error {
			if token == nil || b.Reset {
				// Told once is enough: should this fail, it is done again.
				token = nil
				if err := m.startFeed(ctx, lister); err != nil {
					return err
				}
			}
			if err := m.applyChanges(ctx, b.Changes); err != nil {
				return err
			}
			if len(b.Token) > 0 {
				token = b.Token
			}
			pause = followPause
			if m.proven(b.AsOf) && m.health.follows(m.clock.Now()) {
				m.report(Event{Type: EventFeedResumed})
			}
			return nil
		}
		err := guard.Run("", func() error {
			return feed.Watch(ctx, token, func(b backend.Batch) error {
				// Not through the store, which may hold a lock while it calls.
				return guard.Run("", func() error { return batch(b) })
			})
		})
		if ctx.Err() != nil || errors.Is(err, backend.ErrClosed) {
			return
		}
		switch {
		case err == nil:
			err = errors.New("the feed ended")
		case errors.Is(err, backend.ErrInvalid):
			token = nil // not one that this store can go on from
		}
		err = errs.OfStore("fob: follow the feed", err)
		m.health.lost(err, m.now())
		m.report(Event{Type: EventFeedLost, Err: err})
		retry.Pause(ctx, pause+retry.Jitter(pause/2))
		pause = min(2*pause, followPauseMax)
	}
}

// proven notes that every change before an instant is known here, if one is given.
func (m *Manager) proven(at time.Time) bool {
	if at.IsZero() {
		return false
	}
	// The instant is of the machine's clock, which need not be the Manager's.
	asOf := m.clock.Now().Mono - int64(max(0, time.Since(at)))
	if asOf > m.answers.synced.Load() {
		m.answers.synced.Store(asOf)
	}
	return true
}

// startFeed reads all marks anew, and forgets what was found out before: from now
// on the feed misses nothing, of what was before it may have.
func (m *Manager) startFeed(ctx context.Context, lister backend.Lister) error {
	m.answers.synced.Store(clock.Never)
	if again := m.health.begun(); again {
		// History was lost, and writes with it perhaps: after a failover, say.
		m.leaveFleet()
		m.tryJoin(ctx)
		if err := m.reapply(ctx); err != nil {
			return err
		}
	}
	if err := m.loadMarks(ctx, lister); err != nil {
		return err
	}
	m.ringChanged(ctx) // perhaps
	m.newest.clear()
	return nil
}

// loadMarks reads all marks anew.
func (m *Manager) loadMarks(ctx context.Context, lister backend.Lister) error {
	all := make(map[record.ID]mark)
	for _, kind := range []backend.Kind{record.Mark, record.Subject} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return err
			}
			for i := range page.Records {
				rec := &page.Records[i]
				if all[rec.ID], err = decodeMark(rec); err != nil {
					all[rec.ID] = m.unreadable(rec.ID, err)
				}
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
	}
	m.marks.replace(all, func(id record.ID) { m.problem(nameOfMark(id), nil) })
	return nil
}

func (m *Manager) applyChanges(ctx context.Context, changes []backend.Change) error {
	if len(changes) == 0 {
		return nil
	}
	ids := make([]backend.ID, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
		if isMark(c.ID) {
			before := m.moment()
			was := m.marks.get(c.ID)
			to, created, err := m.readMarkRecord(ctx, c.ID)
			if err != nil && !errors.Is(err, ErrCorrupt) {
				return err
			}
			if m.live(before) && to.before == clock.Forever { // written once, so it was just now
				m.sawWrittenNow(created, before)
			}
			m.sawWritten(created, m.clock.Now())
			if err == nil && was.bad != nil {
				m.problem(nameOfMark(c.ID), nil)
			}
			switch {
			case err != nil:
				m.marks.spoil(c.ID, m.unreadable(c.ID, err))
			case to == (mark{}):
				m.marks.drop(c.ID, was) // purged: what it ended has expired
			default:
				m.marks.raise(c.ID, to)
			}
		}
		if backend.Kind(c.ID[0]) == record.Fleet && c.ID == fleetRecord() {
			m.rejoin(ctx)
		}
		if m.tokens != nil && c.ID == ringRecord(m.cfg.Tokens.Issuer) {
			m.ringChanged(ctx)
		}
	}
	m.forget(ids...) // after the marks: an answer made meanwhile is from the old ones
	return nil
}
