package etcdtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// peerProxy stands between a member and the others, knows them apart, and refuses some of
// them. It is safe for concurrent use.
type peerProxy struct {
	listener net.Listener
	done     sync.WaitGroup

	mu       sync.Mutex // guards what is below
	target   string     // host and port of the member; empty until it runs
	closed   bool
	isolated bool
	excluded map[uint64]bool // members whose connections are refused
	links    map[*link]struct{}
}

// link is one connection through the proxy. Its proxy's lock guards what is set later.
type link struct {
	in, out net.Conn // out is nil until the server is reached
	from    uint64   // the member that it comes from, once it has said so
}

func (l *link) close() {
	_ = l.in.Close()
	if l.out != nil {
		_ = l.out.Close()
	}
}

// newPeerProxy starts a proxy that refuses everybody until it has a target.
func newPeerProxy() (*peerProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("etcdtest: proxy: %w", err)
	}
	p := &peerProxy{listener: l, excluded: make(map[uint64]bool), links: make(map[*link]struct{})}
	p.done.Go(p.accept)
	return p, nil
}

// addr is where the proxy listens: host and port.
func (p *peerProxy) addr() string { return p.listener.Addr().String() }

// close ends the proxy and every connection through it.
func (p *peerProxy) close() {
	_ = p.listener.Close() // closed twice is as well
	p.mu.Lock()
	p.closed = true
	p.drop(func(*link) bool { return true })
	p.mu.Unlock()
	p.done.Wait()
}

func (p *peerProxy) setTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

func (p *peerProxy) isolate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isolated = true
	p.drop(func(*link) bool { return true })
}

func (p *peerProxy) alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isolated
}

func (p *peerProxy) exclude(member uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.excluded[member] = true
	p.drop(func(l *link) bool { return l.from == member })
}

func (p *peerProxy) admit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isolated = false
	clear(p.excluded)
}

// drop closes links; the lock is held.
func (p *peerProxy) drop(which func(*link) bool) {
	for l := range p.links {
		if which(l) {
			l.close()
			delete(p.links, l)
		}
	}
}

func (p *peerProxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(in) })
	}
}

func (p *peerProxy) serve(in net.Conn) {
	l := &link{in: in}
	p.mu.Lock()
	target := p.target
	if p.closed || p.isolated || target == "" {
		p.mu.Unlock()
		_ = in.Close()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		l.close()
		delete(p.links, l)
	}()
	// Connections of members say whose they are in the first request. A client of
	// HTTP speaks first in any case, so nothing is held up by reading that, however
	// late it comes.
	reader := bufio.NewReaderSize(in, 64<<10)
	from := sender(reader)
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	p.mu.Lock()
	l.out, l.from = out, from
	_, goesOn := p.links[l]
	goesOn = goesOn && !p.excluded[from]
	p.mu.Unlock()
	if !goesOn {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(out, reader) })
	both.Go(func() { l.pump(in, out) })
	both.Wait()
}

// sender is the ID of the member that opened a connection, or 0. It reads ahead
// and takes nothing.
func sender(r *bufio.Reader) uint64 {
	for n := 1; ; n = r.Buffered() + 1 {
		if n > r.Size() {
			return 0
		}
		_, err := r.Peek(n)
		head, _ := r.Peek(r.Buffered())
		if !bytes.HasPrefix(head, []byte("GET /raft")) && !bytes.HasPrefix(head, []byte("POST /raft")) && len(head) > 10 {
			return 0
		}
		if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
			_, after, found := bytes.Cut(head[:end+2], []byte("X-Server-From: "))
			if !found {
				return 0
			}
			value, _, _ := bytes.Cut(after, []byte("\r\n"))
			id, _ := strconv.ParseUint(string(value), 16, 64)
			return id
		}
		if err != nil {
			return 0
		}
	}
}

// pump copies until one end closes or takes nothing any more, and then closes both.
func (l *link) pump(to io.Writer, from io.Reader) {
	defer l.close()
	_, _ = io.Copy(to, from)
}
