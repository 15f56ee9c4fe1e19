package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/fobkit/fob/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// busyEvery is the longest time between two proofs while changes come.
	busyEvery = 200 * time.Millisecond
	// soon is the time until what did not succeed is tried again: a proof that was not
	// answered, and the question how far the watch is.
	soon = backend.HeartbeatEvery / 2
	// proofTimeout bounds the read that proves: the next one may find a better
	// member.
	proofTimeout = time.Second
	// maxProofs is how many proofs wait for the watch to reach their revision.
	maxProofs = 8
	// A watch that gets no further for so long, while a proof waits for it, hangs on a
	// connection or a member that is cut off: another one is tried. Every third try in
	// a row that ends like this doubles the time: to begin a watch, a user is
	// authenticated anew, which takes a busy member longer than that.
	stallAfter    = 1500 * time.Millisecond
	stallAfterMax = 30 * time.Second

	sessionPause    = 50 * time.Millisecond
	sessionPauseMax = 500 * time.Millisecond
)

var (
	errLost    = errors.New("the history after this place is gone")
	errStalled = errors.New("the watch does not answer")
	errOver    = errors.New("the watch has ended")
)

// follow runs one session after the other until ctx ends, or going on is
// hopeless.
func (f *follower) follow(ctx context.Context) error {
	wait := sessionPause
	f.patience = stallAfter
	for {
		began := time.Now()
		err := f.session(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isHopeless(err):
			return err
		case errors.Is(err, errLost):
			f.lost = true
		case errors.Is(err, errStalled):
			if f.stalls++; f.stalls%3 == 0 {
				f.patience = min(2*f.patience, stallAfterMax)
			}
		}
		if !f.warned {
			f.warned = true
			f.store.opts.Logger.Warn("etcd: the feed is interrupted and goes on as soon as it can", "error", err)
		}
		if time.Since(began) > sessionPauseMax {
			wait = sessionPause
		}
		if err := sleepFor(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, sessionPauseMax)
		f.sidestep(ctx)
	}
}

// sidestep makes one request more, or none. The client goes through the members in
// turn, and as many requests in each session as there are members would bring
// every watch to the same one: the one that is cut off, say.
func (f *follower) sidestep(ctx context.Context) {
	var coin [1]byte
	_, _ = rand.Read(coin[:]) // never returns an error
	if coin[0]&1 == 0 {
		_ = f.store.probe(ctx) // only to take its turn
	}
}

// pending is a proof on its way: what was committed before asked has a revision
// of at most that of the proof, so that asked is proven once the watch is there.
type pending struct {
	proof
	asked time.Time
	err   error
}

// probe reads the state of the store, through a quorum. A watch alone proves
// nothing: the member that serves it may be cut off from the others, and its
// progress is then that of its own past.
func (s *Store) probe(ctx context.Context) (p pending) {
	p.asked = time.Now() // before the request: it must not claim more than it saw
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), min(proofTimeout, s.opts.Timeout))
	defer cancel()
	if s.client.Ctx().Err() != nil {
		p.err = errClientClosed
		return p
	}
	resp, err := s.kv.Get(ctx, s.keys.marker())
	if err != nil {
		p.err = err
		return p
	}
	p.cluster, p.term, p.revision = resp.Header.ClusterId, resp.Header.RaftTerm, resp.Header.Revision
	if len(resp.Kvs) > 0 {
		m, err := readMarker(resp.Kvs[0])
		if err != nil {
			p.err = err
			return p
		}
		p.epoch, p.markedAt = m.epoch, m.created
	}
	return p
}

// place finds out where to go on from, with the first proof of a session.
func (f *follower) place(p pending) {
	resume, known := f.at, f.placed
	if !f.placed && f.from != nil {
		resume, known = parseToken(f.from)
	}
	switch {
	case !f.placed && f.from == nil:
		f.at = p.position
	case !known || f.lost || !p.continues(resume):
		f.at, f.lost = p.position, true
	default:
		f.at = resume
	}
	f.see(p)
	if f.lost {
		f.box.Reset(f.at.token(), p.asked)
	}
	f.placed, f.lost = true, false
}

// see takes over what a proof says of the history.
func (f *follower) see(p pending) {
	f.seen = p.position
	f.at.epoch, f.at.cluster, f.at.term = p.epoch, p.cluster, p.term
}

// session follows etcd over one watch until that fails. The watcher is one of
// our own: progress is asked of a whole stream, and answered only when every
// watch on it has caught up, so a stream is not shared with others.
func (f *follower) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	p := f.store.probe(ctx)
	if p.err != nil {
		return p.err
	}
	f.place(p)
	// A feed from now on is proven by this alone: the watch will begin right after.
	waiting := f.reached([]pending{p})

	w := clientv3.NewWatcher(f.store.client)
	defer func() {
		cancel()
		_ = w.Close() // the error is that of the stream, which has been seen
	}()
	records := f.store.keys.records()
	// Watch waits for the member, without an end of its own.
	hung := time.AfterFunc(f.patience, cancel)
	changes := w.Watch(ctx, records, clientv3.WithRange(keyAfter([]byte(records))), clientv3.WithRev(f.at.revision+1), clientv3.WithCreatedNotify())
	if !hung.Stop() {
		return errStalled
	}

	proofs := make(chan pending, 1)
	asking, asked := false, p.asked
	due := asked.Add(f.pause(false)) // when to ask for the next proof
	var again time.Time              // when to look again at what is waited for, if anything is
	defer func() {
		cancel()
		if asking {
			<-proofs
		}
	}()
	tick := time.NewTimer(time.Until(due))
	defer tick.Stop()
	moved := time.Now()
	f.request(ctx, w, waiting)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case resp, ok := <-changes:
			if !ok {
				return errOver
			}
			before := f.at.revision
			changed, err := f.receive(&resp)
			if err != nil {
				return err
			}
			if f.at.revision > before {
				moved = time.Now()
			}
			if next := asked.Add(f.pause(true)); changed && next.Before(due) {
				due = next
			}
			f.warned, f.stalls, f.patience = false, 0, stallAfter
		case p := <-proofs:
			asking = false
			if isHopeless(p.err) {
				return p.err
			}
			if p.err != nil {
				due = time.Now().Add(soon) // the next one may succeed; until then nothing is proven
				break
			}
			if !p.continues(f.seen) {
				return errLost
			}
			f.see(p)
			waiting = append(waiting, p)
			f.request(ctx, w, waiting)
		case <-tick.C:
			if len(waiting) > 0 && time.Since(waiting[0].asked) > f.patience && time.Since(moved) > f.patience {
				return errStalled
			}
			if !asking && len(waiting) < maxProofs && !time.Now().Before(due) {
				asking, asked = true, time.Now()
				due = asked.Add(f.pause(false))
				go func() { proofs <- f.store.probe(ctx) }()
			}
			f.request(ctx, w, waiting)
		}
		waiting = f.reached(waiting)
		switch now := time.Now(); {
		case !asking && len(waiting) == 0:
			again = time.Time{}
		case !now.Before(again): // also where there was none
			again = now.Add(soon)
		}
		next := due
		if asking || len(waiting) == maxProofs || !again.IsZero() && again.Before(due) {
			next = again
		}
		tick.Reset(time.Until(next))
	}
}

// pause is the time between two proofs.
func (f *follower) pause(busy bool) time.Duration {
	if busy {
		return min(f.every, busyEvery)
	}
	return f.every
}

// request asks the member how far the watch is, where a proof waits for that and
// no change may come to tell.
func (f *follower) request(ctx context.Context, w clientv3.Watcher, waiting []pending) {
	if len(waiting) == 0 || waiting[len(waiting)-1].revision <= f.at.revision {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, soon) // while it reconnects, the client does not take requests
	defer cancel()
	_ = w.RequestProgress(ctx) // if it fails, the next one is due at once
}

// receive notes what one answer of the watch says, and reports whether there are changes.
func (f *follower) receive(resp *clientv3.WatchResponse) (changed bool, err error) {
	if resp.CompactRevision != 0 {
		return false, errLost
	}
	if err := resp.Err(); err != nil {
		return false, err
	}
	if resp.Created {
		return false, nil
	}
	if len(resp.Events) == 0 {
		// All changes up to this revision have come. Of an answer with events the
		// header says no such thing: it may be one of several.
		if resp.IsProgressNotify() && resp.Header.Revision > f.at.revision {
			f.at.revision = resp.Header.Revision
		}
		return false, nil
	}
	changes := make([]backend.Change, 0, len(resp.Events))
	prefix := len(f.store.keys.records())
	last := f.at.revision
	for _, ev := range resp.Events {
		if ev.Kv.ModRevision <= f.at.revision {
			continue // a repetition, from before the place where the client took up again
		}
		last = max(last, ev.Kv.ModRevision)
		if len(ev.Kv.Key) != prefix+idLen {
			f.store.opts.Logger.Warn("etcd: a key among the records that is none", "key", hex.EncodeToString(ev.Kv.Key))
			continue
		}
		changes = append(changes, backend.Change{ID: backend.ID(ev.Kv.Key[prefix:]), Version: uint64(ev.Kv.ModRevision)})
	}
	f.at.revision = last
	if len(changes) > 0 {
		f.box.Prove(changes, f.at.token(), time.Time{})
	}
	return len(changes) > 0, nil
}

// reached delivers the latest proof whose revision the watch has passed, and
// returns those that still wait.
func (f *follower) reached(waiting []pending) []pending {
	n := 0
	for n < len(waiting) && waiting[n].revision <= f.at.revision {
		n++
	}
	if n > 0 {
		f.box.Prove(nil, f.at.token(), waiting[n-1].asked)
	}
	return waiting[n:]
}
