package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/jackc/pgx/v5"
)

const (
	// notifyEvery is the shortest time between two NOTIFYs of one process: many
	// writes share one, and those who listen are not kept busy.
	notifyEvery = 5 * time.Millisecond
	// notifyPatience bounds the sending of one, and so how long Close waits for it.
	notifyPatience = time.Second
	// maxUnsent is how many changes wait to be announced. Of more, only that there are
	// some is said.
	maxUnsent = 10_000
	// perNotify is how many changes go into one NOTIFY, of less than 8,000 bytes.
	perNotify = 240
)

// unsent is what others are to be told.
type unsent struct {
	mu   sync.Mutex // guards rows and many
	rows []row
	many bool // there were too many to name

	wake chan struct{}
}

// announce tells this process's Watches, and by way of the server those of others, of
// changes; without any, that there are some. It waits for nobody. The changes are
// committed: a NOTIFY inside their transaction would make all commits of the database
// take turns.
func (s *Store) announce(changes ...row) {
	s.unsent.add(changes)
	s.changed.Ring()
	select {
	case s.unsent.wake <- struct{}{}:
	default: // it has been woken already
	}
}

func (u *unsent) add(changes []row) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.many = u.many || len(changes) == 0 || len(u.rows)+len(changes) > maxUnsent; u.many {
		u.rows = nil
		return
	}
	u.rows = append(u.rows, changes...)
}

// take returns what is to be said, and has nothing more to say then.
func (u *unsent) take(instance string) (payloads []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.many {
		payloads = []string{""}
	}
	for part := range slices.Chunk(u.rows, perNotify) {
		payloads = append(payloads, announcement(instance, part))
	}
	u.rows, u.many = nil, false
	return payloads
}

// An announcement is the base64 of a tag, and of 24 bytes for each change: its ID, and its
// version. Whoever may connect to the database may send a NOTIFY, and what is announced is
// forgotten, and read again, by all processes. So the tag is an HMAC under the name of the
// store's instance, which is random, and which only those can read who can read the store.
const (
	tagLen    = 16
	announced = len(backend.ID{}) + 8
)

func announcement(instance string, changes []row) string {
	b := make([]byte, tagLen, tagLen+len(changes)*announced)
	for _, c := range changes {
		b = binary.BigEndian.AppendUint64(append(b, c.id[:]...), uint64(c.version))
	}
	copy(b, tagOf(instance, b[tagLen:]))
	return base64.StdEncoding.EncodeToString(b)
}

// readAnnouncement reads an announcement. ok is false if it names no change, or is not of
// the store.
func readAnnouncement(instance, payload string) (changes []row, ok bool) {
	b, err := base64.StdEncoding.DecodeString(payload)
	if err != nil || len(b) <= tagLen || (len(b)-tagLen)%announced != 0 || !hmac.Equal(b[:tagLen], tagOf(instance, b[tagLen:])) {
		return nil, false
	}
	for part := range slices.Chunk(b[tagLen:], announced) {
		id := backend.ID(part[:len(backend.ID{})])
		changes = append(changes, row{id, int64(binary.BigEndian.Uint64(part[len(id):]))})
	}
	return changes, true
}

func tagOf(instance string, changes []byte) []byte {
	mac := hmac.New(sha256.New, []byte("fob notify "+instance))
	mac.Write(changes)
	return mac.Sum(nil)[:tagLen]
}

// notify is the goroutine that sends NOTIFY, once for all changes since the last.
// It is a hint: what is lost, the next poll finds.
func (s *Store) notify() {
	for {
		select {
		case <-s.unsent.wake:
			s.send()
		case <-s.life.Done():
			s.send() // what the last write of a short-lived process wants to tell
			return
		}
		sleepFor(s.life, notifyEvery)
	}
}

func (s *Store) send() {
	payloads := s.unsent.take(*s.instance.Load())
	if len(payloads) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), notifyPatience)
	defer cancel()
	// Like a read it may be sent again, where the connection was lost.
	err := s.call(ctx, ctx, "notify", stageReading, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_notify($1::text, said) FROM unnest($2::text[]) AS said", s.opts.channel(), payloads)
		return err
	})
	if err != nil {
		s.opts.Logger.Debug("postgres: NOTIFY failed, others will see the change when they poll", "error", err)
	}
}
