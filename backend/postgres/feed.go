package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/outbox"
	"github.com/jackc/pgx/v5"
)

// maxChanges bounds what one poll reads.
const maxChanges = 10_000

// snapshot is what a statement saw: of the transactions, all below xmin had
// ended, none from xmax on had, and of those between, the running ones had not.
type snapshot struct {
	xmin, xmax int64
	running    []int64
}

// fullSnapshot is a snapshot that everything is in.
func fullSnapshot() snapshot { return snapshot{math.MaxInt64, math.MaxInt64, nil} }

// parseSnapshot reads PostgreSQL's "xmin:xmax:running,running".
func parseSnapshot(text string) (snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return snapshot{}, fmt.Errorf("%w: snapshot %q", backend.ErrCorrupt, text)
	}
	numbers := parts[:2]
	if parts[2] != "" {
		numbers = append(numbers, strings.Split(parts[2], ",")...)
	}
	parsed := make([]int64, len(numbers))
	for i, n := range numbers {
		var err error
		if parsed[i], err = strconv.ParseInt(n, 10, 64); err != nil {
			return snapshot{}, fmt.Errorf("%w: snapshot %q", backend.ErrCorrupt, text)
		}
	}
	return snapshot{parsed[0], parsed[1], parsed[2:]}, nil
}

// and is what both snapshots say has ended.
func (s snapshot) and(other snapshot) snapshot {
	both := snapshot{min(s.xmin, other.xmin), min(s.xmax, other.xmax), slices.Concat(s.running, other.running)}
	slices.Sort(both.running)
	both.running = slices.Compact(both.running)
	end, _ := slices.BinarySearch(both.running, both.xmax)
	both.running = both.running[:end]
	return both
}

// place is where a Watch stands: it has delivered what is in the snapshot since,
// and of the rest, in the order of (txid, version), what is not after these two.
type place struct {
	since         snapshot
	txid, version int64
}

// row is one of the feed.
type row struct {
	id      backend.ID
	version int64
}

// answer of one poll.
type pollAnswer struct {
	snapshot snapshot
	floor    int64
	identity [16]byte
	// The log had reached inserted when the snapshot had been taken, and is on disk
	// up to flushed.
	inserted, flushed int64
	rows              []row
	full              bool // there may be more: last says where
	last              place
}

// asker sends a statement: on a connection of the pool, or on the line of a Watch.
type asker interface {
	ask(ctx context.Context, do func(context.Context, *pgx.Conn) error) error
}

// poll asks for the changes behind a place: one statement.
func (s *Store) poll(ctx context.Context, by asker, at place) (pollAnswer, error) {
	var p pollAnswer
	var text, identity string
	var txids, versions []int64
	var ids [][]byte
	running := at.since.running
	if running == nil {
		running = []int64{}
	}
	txid, version := at.since.xmax, int64(0) // versions are above it
	if at.txid >= txid {
		txid, version = at.txid, at.version
	}
	err := by.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, s.sql.poll, running, at.txid, at.version, txid, version, maxChanges).
			Scan(&text, &p.floor, &identity, &p.inserted, &p.flushed, &txids, &versions, &ids)
	})
	if err != nil {
		return p, err
	}
	if p.snapshot, err = parseSnapshot(text); err != nil {
		return p, err
	}
	if instance, _, _ := strings.Cut(identity, "/"); s.instance.Load() == nil || *s.instance.Load() != instance {
		s.instance.Store(&instance)
	}
	sum := sha256.Sum256([]byte(identity))
	copy(p.identity[:], sum[:])
	if p.floor > p.snapshot.xmin {
		p.floor = 0 // a restore has brought it from a server that was further on
	}
	p.rows = make([]row, len(ids))
	for n, b := range ids {
		if len(b) != len(backend.ID{}) || versions[n] < 1 {
			return p, fmt.Errorf("postgres: watch: %w: change of %x", backend.ErrCorrupt, b)
		}
		p.rows[n] = row{backend.ID(b), versions[n]}
	}
	if n := len(ids); n == maxChanges {
		p.full, p.last = true, place{at.since, txids[n-1], versions[n-1]}
	}
	return p, nil
}

// follower is one Watch.
//
// A server that crashes gives out again the numbers of transactions whose end was
// not yet on disk: those that were rolled back, and those that had nothing to wait
// for the disk for, such as a NOTIFY. A snapshot says that they have ended, and a
// change that is committed under the same number afterwards would be taken for one
// that was delivered. So the place moves only to a snapshot whose part of the log
// is known to be on disk; what is read again until then is in seen.
type follower struct {
	store    *Store
	box      *outbox.Box
	every    time.Duration // how often a proof is wanted
	at       place
	known    bool         // at.since is a place in this feed, and identity is the feed's
	identity [16]byte     // of the feed that at is a place in
	seen     map[row]bool // of what is behind at, what polls have delivered
	ahead    *sight       // the place to move to when it is on disk

	// A pass reads, in pages, all that its first poll saw.
	inPass  bool
	first   sight
	reading map[row]bool

	proven time.Time // every change before it was delivered
}

// sight is what a poll saw.
type sight struct {
	asked    time.Time // before it
	snapshot snapshot
	inserted int64
}

const (
	// reusable is how many of the last transaction numbers a crash may make the
	// server give out again, where a Watch begins and nothing better is known.
	reusableNumbers = 10_000
	// flushPatience is longer than the end of a transaction stays off the disk: three
	// times the highest wal_writer_delay.
	flushPatience = 30 * time.Second
)

// next makes one Batch, and says whether the next one is to be asked for at once.
func (f *follower) next(ctx context.Context, by asker, fresh bool) (b backend.Batch, more bool, err error) {
	defer func() {
		if err != nil { // perhaps a crash: what was half read, or half sure, is not to be built on
			f.inPass, f.at, f.ahead = false, place{since: f.at.since}, nil
		}
	}()
	asked := time.Now() // before the request: a proof must not claim more than it saw
	p, err := f.store.poll(ctx, by, f.at)
	if err != nil {
		return b, false, err
	}
	// Below the floor something may be missing, and a place ahead of the server is
	// of another history.
	lost := !fresh && (!f.known || p.identity != f.identity || p.floor > f.at.since.xmin || f.at.since.xmin > p.snapshot.xmax)
	begins := fresh || lost
	if begins {
		f.known, f.inPass, f.seen, f.ahead = fresh, false, nil, nil
		f.at = place{since: p.snapshot}
		if p.inserted > p.flushed {
			xmin := max(p.snapshot.xmin-reusableNumbers, p.floor)
			f.at.since = snapshot{xmin: xmin, xmax: xmin}
			asked = time.Now()
			if p, err = f.store.poll(ctx, by, f.at); err != nil {
				return b, false, err
			}
		}
	}
	if !f.inPass {
		f.first, f.reading = sight{asked, p.snapshot, p.inserted}, make(map[row]bool)
	}
	f.known, f.identity = true, p.identity
	b = backend.Batch{Reset: lost}
	if !begins { // where it begins, what there is already is not news
		b.Changes = f.news(p.rows)
	}
	for _, r := range p.rows[:min(len(p.rows), maxChanges-len(f.reading))] { // more of it comes twice
		f.reading[r] = true
	}
	if p.full && !begins {
		f.inPass = true
		b.AsOf = f.proven // more is to come: this one proves no more than the last
		xmin := f.at.since.xmin
		if f.first.inserted <= p.flushed {
			xmin = min(p.last.txid, f.first.snapshot.xmin)
		}
		b.Token = token(f.identity, xmin)
		f.at = p.last
		return b, true, nil
	}
	f.inPass, f.seen, f.proven = false, f.reading, f.first.asked
	f.move(p)
	b.AsOf = f.proven
	b.Token = token(f.identity, f.at.since.xmin)
	return b, false, nil
}

// news are the changes in rows that no poll has delivered, the latest of each ID. What was
// announced is not among those: whoever can read the store could otherwise announce a
// change before it is made, and hide it from the others.
func (f *follower) news(rows []row) (changes []backend.Change) {
	at := make(map[backend.ID]int, len(rows))
	for _, r := range rows {
		if f.seen[r] {
			continue
		}
		if i, again := at[r.id]; again {
			changes[i].Version = max(changes[i].Version, uint64(r.version))
			continue
		}
		at[r.id] = len(changes)
		changes = append(changes, backend.Change{ID: r.id, Version: uint64(r.version)})
	}
	return changes
}

// move ends a pass whose last poll was p. What runs by p has not ended, whatever
// an earlier snapshot says: a crash came between.
func (f *follower) move(p pollAnswer) {
	f.at = place{since: f.at.since}
	if f.first.inserted <= p.flushed {
		f.at.since, f.ahead = f.first.snapshot.and(p.snapshot), nil
		return
	}
	if a := f.ahead; a != nil && (a.inserted <= p.flushed || f.first.asked.Sub(a.asked) > flushPatience) {
		f.at.since, f.ahead = a.snapshot.and(p.snapshot), nil
	}
	if f.ahead == nil {
		first := f.first
		f.ahead = &first
	}
}

// tokenFormat is the first byte of a token.
const tokenFormat = 1

// token is the feed's identity and a transaction: all before it were delivered.
func token(identity [16]byte, xmin int64) backend.Token {
	return binary.BigEndian.AppendUint64(append(backend.Token{tokenFormat}, identity[:]...), uint64(xmin))
}

// resume takes up a token; one that is none leaves the follower without a place.
func (f *follower) resume(t backend.Token) {
	if len(t) != 1+len(f.identity)+8 || t[0] != tokenFormat {
		return
	}
	copy(f.identity[:], t[1:])
	xmin := int64(binary.BigEndian.Uint64(t[1+len(f.identity):]))
	if xmin < 0 {
		return
	}
	f.at, f.known = place{since: snapshot{xmin: xmin, xmax: xmin}}, true
}
