package usagelog

import (
	"context"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
)

// Return is a use of a credential that had not been used before, or not for a long time.
type Return struct {
	Before Tally // its uses before; N is zero if there were none
	Last   int64 // when it was used now (Unix milliseconds)
}

// returns finds the Returns among the uses that a Flush writes. It asks the store for the
// usage of a credential when this process writes a use of it for the first time, or again
// after a long time. In between it knows that the credential is in use, so a Flush asks for
// little, and a use costs nothing. It is guarded by Log.flush, except for what Log.mu guards.
type returns struct {
	idle         int64 // milliseconds without use that are a long time
	limit        int
	known, older map[backend.ID]int64 // the last uses that were written here: two generations of up to limit each

	found map[backend.ID]Return // guarded by Log.mu
	err   error                 // why some may not have been found; guarded by Log.mu
}

// Watch makes the log look for Returns: the first use of a credential, and the next one
// after it has not been used for idle. It must be called before the first Flush.
func (l *Log) Watch(idle time.Duration) {
	l.returns = &returns{idle: idle.Milliseconds(), limit: l.limit, known: map[backend.ID]int64{}, found: map[backend.ID]Return{}}
}

// Returns returns the Returns that were found since it was last called. err is why some may
// be missing.
func (l *Log) Returns() (found map[backend.ID]Return, err error) {
	if l.returns == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found, err = l.returns.found, l.returns.err
	l.returns.found, l.returns.err = map[backend.ID]Return{}, nil
	return found, err
}

// lookWait bounds how long the writing of usage waits for what is only an event.
const lookWait = 2 * time.Second

// look finds the Returns in a batch that is about to be written.
func (r *returns) look(ctx context.Context, recorder backend.UsageRecorder, batch []backend.Usage) (found map[backend.ID]Return, err error) {
	var ids []backend.ID
	last := map[backend.ID]int64{}
	for _, u := range batch {
		if before := max(r.known[u.ID], r.older[u.ID]); before == 0 || u.Last-before >= r.idle {
			ids, last[u.ID] = append(ids, u.ID), u.Last
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	stored, err := recorder.Usage(ctx, ids)
	if err != nil {
		return nil, errs.OfStore("fob: read usage", err)
	}
	found = map[backend.ID]Return{}
	for i, id := range ids {
		if before := (Tally{stored[i].N, stored[i].Last}); before.N == 0 || last[id]-before.Last >= r.idle {
			found[id] = Return{before, last[id]}
		}
	}
	return found, nil
}

// wrote notes a batch that was written, or may have been, and what look has said of it.
func (l *Log) wrote(batch []backend.Usage, found map[backend.ID]Return, err error) {
	r := l.returns
	for _, u := range batch {
		if _, known := r.known[u.ID]; !known && len(r.known) >= r.limit {
			r.known, r.older = map[backend.ID]int64{}, r.known
		}
		r.known[u.ID] = u.Last
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, back := range found {
		r.found[id] = back
	}
	if err != nil {
		r.err = err
	}
}
