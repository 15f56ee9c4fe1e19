package marks

import (
	"sync"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
)

// Set are the records that end credentials from outside: of single tokens and
// families, of what was issued before an instant, and the epochs of subjects. They
// are few, since only what was revoked has one, and follow the store's feed: while
// the feed is alive, nothing has to be read from the store to know that a token is
// good.
type Set struct {
	Follows bool // there is a feed; without one nothing is kept here
	forget  func(...backend.ID)

	mu  sync.RWMutex // guards all
	all map[record.ID]Mark
}

// New makes a set without marks. follows says that there is a feed; forget ends what
// was made from a mark.
func New(follows bool, forget func(...backend.ID)) *Set {
	return &Set{Follows: follows, forget: forget, all: make(map[record.ID]Mark)}
}

// Mark is what one record says. All of its numbers only rise.
type Mark struct {
	// Epoch is that of a subject or an issuer, with which what is issued is stamped. What
	// a subject has under an older one is revoked.
	Epoch uint64
	// Ends is, of an issuer, the epoch from which on what is stamped is not revoked.
	Ends uint64
	// Before is, of a single token or family, forever. Of an issuer: what is stamped
	// with less than epoch, and was issued before this, is revoked.
	Before int64
	Reason string
	// Bad is why the record cannot be read. What it is about could not be checked then;
	// all else does not depend on it.
	Bad error
}

// EndsToken reports whether the mark of a token, of a family or of an issuer revokes
// what was stamped with the issuer's epoch and issued at an instant. Time decides
// nothing but "issued before": what was issued knowing of the mark was issued after it,
// however late the clock of its issuer is.
func (k *Mark) EndsToken(stamp uint64, issuedAt int64) bool {
	return k.Before == clock.Forever || stamp < k.Ends || stamp < k.Epoch && issuedAt < k.Before
}

// Join returns a mark that says what either does.
func (k Mark) Join(o Mark) Mark {
	k.Epoch, k.Ends, k.Before = max(k.Epoch, o.Epoch), max(k.Ends, o.Ends), max(k.Before, o.Before)
	return k
}

// Covers reports whether k says all that o does.
func (k *Mark) Covers(o *Mark) bool {
	return k.Epoch >= o.Epoch && k.Ends >= o.Ends && k.Before >= o.Before
}

// Get is the zero mark where nothing is known.
func (s *Set) Get(id record.ID) Mark {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[id]
}

// Raise notes a mark, if it is news: an older state never replaces a newer one, since
// epochs and instants only rise. What was made from an older one is forgotten before
// anybody can see the new one and tell of it.
func (s *Set) Raise(id record.ID, to Mark) {
	if !s.Follows {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.all[id]; old.Bad == nil {
		if old.Covers(&to) {
			return
		}
		to = to.Join(old) // what either says is revoked stays so
	}
	s.all[id] = to
	s.forget(id)
}

// Spoil replaces what is known of a mark by what says that it cannot be read.
func (s *Set) Spoil(id record.ID, bad Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[id] = bad
}

// Replace takes in all marks as they were read anew. mended is called for each that could
// not be read before and can be now.
func (s *Set) Replace(all map[record.ID]Mark, mended func(record.ID)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, own := range s.all {
		// What this process has just written may have come after its page was read.
		read := all[id]
		if own.Bad != nil && read.Bad == nil {
			mended(id)
		}
		if read.Bad == nil && !read.Covers(&own) {
			all[id] = own.Join(read)
		}
	}
	s.all = all
}

// Drop forgets a mark that was purged, if it is still what it was before that was found:
// this Manager may have written it anew.
func (s *Set) Drop(id record.ID, was Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[id] == was {
		delete(s.all, id)
	}
}

// Is reports whether an ID is that of a record that marks hold: the first
// byte of a record's ID that is no credential's is its kind.
func Is(id backend.ID) bool {
	return backend.Kind(id[0]) == record.Mark || backend.Kind(id[0]) == record.Subject
}

// DecodeEpoch reads the record of a subject: only its epoch is set, and the reason.
func DecodeEpoch(rec *backend.Record) (Mark, error) {
	r, err := record.Open(rec, record.Subject)
	if err != nil {
		return Mark{}, err
	}
	var out Mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldEpoch:
			out.Epoch = r.Number(v)
		case record.FieldReason:
			out.Reason = v
		default:
			r.Bad = true
		}
	}
	if r.Bad || out.Epoch == 0 || !record.KnownSubject(rec.Owner) {
		return Mark{}, record.Corrupt(rec, "epoch")
	}
	return out, nil
}

// Decode reads the record of a mark or of a subject.
func Decode(rec *backend.Record) (Mark, error) {
	if rec.Kind == record.Subject {
		return DecodeEpoch(rec)
	}
	r, err := record.Open(rec, record.Mark)
	if err != nil {
		return Mark{}, err
	}
	var out Mark
	for field, v := range r.Fields {
		switch field {
		case record.FieldReason:
			out.Reason = v
		case record.FieldEpoch:
			out.Epoch = r.Number(v)
		case record.FieldBefore:
			out.Before = r.Millis(v)
		case record.FieldEnds:
			out.Ends = r.Number(v)
		default:
			r.Bad = true
		}
	}
	if out.Epoch == 0 && out.Before != 0 && out.Before != clock.Forever {
		out.Epoch = 1 // written before there were epochs: what has no stamp is older than that
	}
	if r.Bad || out.Before == 0 && out.Ends == 0 || out.Ends > out.Epoch || (out.Before == clock.Forever) != (out.Epoch == 0) {
		return Mark{}, record.Corrupt(rec, "fields")
	}
	return out, nil
}

// Encode writes a mark that is no subject's.
func (k *Mark) Encode(rec *backend.Record) {
	w := record.NewBody()
	w.Text(record.FieldReason, k.Reason)
	w.Number(record.FieldEpoch, k.Epoch)
	w.Number(record.FieldBefore, uint64(k.Before))
	w.Number(record.FieldEnds, k.Ends)
	w.Finish(rec)
}
