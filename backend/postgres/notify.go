package postgres

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
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

// An announcement is the base64 of a salt and of sealed changes, 24 bytes for each: its ID,
// and its version. Whoever may connect to the database may listen and may send a NOTIFY.
// Because of the seal they learn that something changes and about how much, but not what;
// and they cannot make all processes forget a record, and read it again, by naming it. The
// key comes from the salt and the name of the store's instance, which is random, and which
// only those can read who can read the store.
const (
	saltLen   = 16
	announced = len(backend.ID{}) + 8
)

func announcement(instance string, changes []row) string {
	plain := make([]byte, 0, len(changes)*announced)
	for _, c := range changes {
		plain = binary.BigEndian.AppendUint64(append(plain, c.id[:]...), uint64(c.version))
	}
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // it never returns an error
	return base64.StdEncoding.EncodeToString(sealer(instance, salt).Seal(salt, nil, plain, nil))
}

// readAnnouncement reads an announcement. ok is false if it names no change, or is not of
// the store.
func readAnnouncement(instance, payload string) (changes []row, ok bool) {
	b, err := base64.StdEncoding.DecodeString(payload)
	if err != nil || len(b) < saltLen {
		return nil, false
	}
	plain, err := sealer(instance, b[:saltLen]).Open(nil, nil, b[saltLen:], nil)
	if err != nil || len(plain) == 0 || len(plain)%announced != 0 {
		return nil, false
	}
	for part := range slices.Chunk(plain, announced) {
		id := backend.ID(part[:len(backend.ID{})])
		changes = append(changes, row{id, int64(binary.BigEndian.Uint64(part[len(id):]))})
	}
	return changes, true
}

// sealer has a key of its own for each announcement: together the processes on a store make
// more of them than one key of AES-GCM is good for.
func sealer(instance string, salt []byte) cipher.AEAD {
	mac := hmac.New(sha256.New, []byte("fob notify "+instance))
	mac.Write(salt)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // there is no such length of a key
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has the blocks that GCM wants
	}
	return aead
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
