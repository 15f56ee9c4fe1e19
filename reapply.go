package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/marks"
)

// What is revoked here is remembered for a while and revoked once more when the feed
// says that history was lost: a server that took over from another one may have
// forgotten writes which that one had acknowledged.
const (
	recentFor = 10 * time.Minute
	recentMax = 1024 // revocations of each sort; of more the latest
)

// recent is what was lately revoked by this Manager. Tokens and families, which
// their holders may revoke themselves, push out nothing else.
type recent struct {
	mu     sync.Mutex // guards all
	others []recentRevocation
	tokens []recentRevocation
	// whole is from when on (monotonic) all of it is here: those that had to make room
	// would have been forgotten by then. An instant at which something was is no sign of
	// whether it was, for the first one is zero.
	whole int64
}

// recentRevocation is one revocation: of an ID, of a subject, or of what an issuer has
// issued.
type recentRevocation struct {
	at     int64 // monotonic
	rev    Revocation
	issuer marks.Mark // what the issuer's mark was raised to
	token  bool       // of a token, or of a family
}

// again reports whether two revocations are of the same thing, if perhaps of more or
// less of it.
func (r *recentRevocation) again(o *recentRevocation) bool {
	return r.rev.ID == o.rev.ID && r.rev.Subject == o.rev.Subject && r.rev.SubjectKind == o.rev.SubjectKind && (r.issuer.Epoch == 0) == (o.issuer.Epoch == 0)
}

func (r *recent) note(now clock.Moment, made recentRevocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := &r.others
	if made.token {
		list = &r.tokens
	}
	made.at = now.Mono
	*list = current(*list, now)
	// What is revoked over and over is still one: the one that ends the most.
	if i := slices.IndexFunc(*list, func(old recentRevocation) bool { return old.again(&made) }); i >= 0 {
		old := (*list)[i]
		made.issuer = made.issuer.Join(old.issuer)
		if old.rev.Epoch > made.rev.Epoch {
			made.rev = old.rev
		}
		*list = slices.Delete(*list, i, i+1)
	}
	if len(*list) == recentMax {
		r.whole = max(r.whole, (*list)[0].at+int64(recentFor))
		*list = slices.Delete(*list, 0, 1)
	}
	*list = append(*list, made)
}

// current is list without what is too old; the oldest come first.
func current(list []recentRevocation, now clock.Moment) []recentRevocation {
	old := 0
	for old < len(list) && now.Mono-list[old].at >= int64(recentFor) {
		old++
	}
	return slices.Delete(list, 0, old)
}

// list returns what was lately revoked, and whether that is not all of it.
func (r *recent) list(now clock.Moment) (made []recentRevocation, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others, r.tokens = current(r.others, now), current(r.tokens, now)
	return slices.Concat(r.others, r.tokens), now.Mono < r.whole
}

// reapplyIssuer raises the issuer's mark to what it was here, unless it is that high.
func (m *Manager) reapplyIssuer(ctx context.Context, to marks.Mark) error {
	old, err := m.readMark(ctx, m.issuerMark())
	if err != nil {
		return errs.OfStore("read", err)
	}
	if old.Covers(&to) {
		m.marks.Learn(m.issuerMark(), old)
		return nil
	}
	_, err = m.marks.RaiseIssuer(ctx, m.issuerMark(), to)
	m.observeOutcome(Event{Type: EventTokensRevoked, Reason: RevokeReason(to.Reason)}, err)
	return err
}

// errNotAllAgain is why an operator has to do the rest of it.
var errNotAllAgain = fmt.Errorf("fob: history was lost, and more than %d revocations were made in the last %v: apply an export of them", recentMax, recentFor)

// noteRevoked remembers a revocation that was made, or may have been.
func (m *Manager) noteRevoked(made recentRevocation, err error) {
	if made.rev.Subject != "" && made.rev.Epoch == 0 || made.rev.Subject == "" && made.rev.ID.IsZero() && made.issuer.Epoch == 0 {
		return // nothing was written yet
	}
	if err == nil || errors.Is(err, ErrIndeterminate) {
		m.recent.note(m.clock.Now(), made)
	}
}

// reapply revokes once more what was lately revoked here. What cannot be asked now is
// an error, and the feed begins again; what is wrong for another reason is reported,
// and does not keep the feed from being followed.
func (m *Manager) reapply(ctx context.Context) error {
	all, more := m.recent.list(m.clock.Now())
	if more {
		m.report(Event{Type: EventUpkeepFailed, Err: errNotAllAgain})
	}
	for _, made := range all {
		err := guard.Run("", func() error { return m.reapplyOne(ctx, made) })
		switch {
		case err == nil, errors.Is(err, ErrNotFound):
		case errs.IsOutage(err):
			return err
		default:
			m.report(Event{Type: EventUpkeepFailed, ID: made.rev.ID, Subject: made.rev.Subject, Err: err})
		}
	}
	return nil
}

func (m *Manager) reapplyOne(ctx context.Context, made recentRevocation) error {
	switch rev := made.rev; {
	case made.issuer.Epoch != 0:
		return m.reapplyIssuer(ctx, made.issuer)
	case rev.Subject != "":
		_, err := m.applyEpoch(ctx, rev)
		return err
	default:
		_, _, err := m.revokeID(ctx, rev.ID, rev.Reason)
		return err
	}
}
