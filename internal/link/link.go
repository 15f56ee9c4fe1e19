// Package link stands between a client and a server in tests, as a network does: it takes
// its time, is cut, or swallows what it is given. Whoever changes it never waits for the
// connections through it, whatever state they are in: a proxy that does can hang a test.
package link

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/fobkit/fob/internal/port"
)

// Way is how a link treats what comes in one direction.
type Way struct {
	Delay  time.Duration // from when something comes until it is passed on
	Jitter time.Duration // each Delay is up to this much shorter or longer
	Lose   bool          // nothing is passed on; connections stay, and can be made
}

// Link passes TCP connections on to a server. Its methods are safe for concurrent use. Make
// one with Start.
type Link struct {
	upstream string
	at       *port.Port
	wg       sync.WaitGroup // goroutines of connections, and the one that accepts them

	mu      sync.Mutex // guards what is below
	ways    [2]Way
	changed chan struct{} // closed when ways change
	accepts net.Listener  // nil while the link is cut
	open    map[net.Conn]struct{}
}

// The directions, as indexes of ways.
const (
	toServer = iota
	toClient
)

// queued is how many reads are on their way in one direction of a connection. Whoever sends
// more waits.
const queued = 1024

// Start makes a link to the server at an address. It listens until Close.
func Start(upstream string) (*Link, error) {
	at, err := port.Keep() // while the link is cut, too
	if err != nil {
		return nil, err
	}
	l := &Link{upstream: upstream, at: at, changed: make(chan struct{}), open: make(map[net.Conn]struct{})}
	if err := l.Mend(); err != nil {
		return nil, errors.Join(err, at.Release())
	}
	return l, nil
}

// Addr is where clients connect to. It does not change.
func (l *Link) Addr() string { return l.at.Addr() }

// Set changes how what comes is treated from now on, and what is under way.
func (l *Link) Set(toServerWay, toClientWay Way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set([2]Way{toServerWay, toClientWay})
}

// Silence loses everything, in both directions, until Mend.
func (l *Link) Silence() { l.Set(Way{Lose: true}, Way{Lose: true}) }

// Cut ends all connections. None can be made until Mend.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
}

// Mend lets everything pass at once, and connections be made again. Those that exist are
// ended if something was lost on them, because they are of no use any more.
func (l *Link) Mend() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ways[toServer].Lose || l.ways[toClient].Lose {
		l.cut()
	}
	l.set([2]Way{})
	if l.accepts != nil {
		return nil
	}
	accepts, err := net.Listen("tcp4", l.at.Addr())
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	l.accepts = accepts
	l.wg.Go(func() { l.accept(accepts) })
	return nil
}

// Close ends the link, and returns when all of it has ended. It is called once, after every
// other method has returned.
func (l *Link) Close() error {
	l.Cut()
	l.Set(Way{}, Way{}) // nothing waits to be passed on any more
	l.wg.Wait()
	return l.at.Release()
}

// set is Set, with the lock held.
func (l *Link) set(ways [2]Way) {
	l.ways = ways
	close(l.changed)
	l.changed = make(chan struct{})
}

// cut is Cut, with the lock held.
func (l *Link) cut() {
	if l.accepts != nil {
		_ = l.accepts.Close() // it cannot be used any more, whatever this says
		l.accepts = nil
	}
	for c := range l.open {
		_ = c.Close()
	}
}

func (l *Link) accept(from net.Listener) {
	for {
		client, err := from.Accept()
		if err != nil {
			return // the link was cut
		}
		if !l.enter(from, client) {
			continue
		}
		l.wg.Go(func() { l.connect(from, client) })
	}
}

// enter notes a connection, unless the link was cut since it was accepted or asked for:
// then it closes it.
func (l *Link) enter(from net.Listener, c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepts != from {
		_ = c.Close()
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *Link) leave(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = c.Close()
	delete(l.open, c)
}

// connect passes a connection on, in both directions, until one end closes it or takes
// nothing any more.
func (l *Link) connect(from net.Listener, client net.Conn) {
	defer l.leave(client)
	server, err := net.Dial("tcp", l.upstream)
	if err != nil || !l.enter(from, server) {
		return
	}
	defer l.leave(server)
	var wg sync.WaitGroup
	wg.Go(func() { l.pass(server, client, toServer) })
	wg.Go(func() { l.pass(client, server, toClient) })
	wg.Wait()
}

// piece is what was read at once.
type piece struct {
	came time.Time
	data []byte
}

// pass copies what comes from one end to the other. When one end closes, so does the
// other, after what was under way.
func (l *Link) pass(to, from net.Conn, direction int) {
	pieces := make(chan piece, queued)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if n > 0 {
				pieces <- piece{time.Now(), data[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		if l.hold(p.came, direction) {
			continue
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_ = from.Close() // which ends the reader
	_ = to.Close()
	for range pieces { // until it has ended
	}
}

// hold waits until what came at an instant is passed on. It reports whether that is lost.
func (l *Link) hold(came time.Time, direction int) (lost bool) {
	var dice [4]byte
	_, _ = rand.Read(dice[:]) // it never fails
	jitter := 2*float64(binary.NativeEndian.Uint32(dice[:]))/math.MaxUint32 - 1
	for {
		l.mu.Lock()
		way, changed := l.ways[direction], l.changed
		l.mu.Unlock()
		if way.Lose {
			return true
		}
		left := way.Delay + time.Duration(jitter*float64(way.Jitter)) - time.Since(came)
		if left <= 0 {
			return false
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			return false
		case <-changed:
			timer.Stop()
		}
	}
}
