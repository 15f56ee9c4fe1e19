// Package port keeps TCP ports of the loopback interface for servers that are told
// a number and listen by themselves, as PostgreSQL and etcd do: a number that was
// free a moment ago may be somebody else's by the time such a server listens, and
// again between its end and its next start.
package port

import (
	"net"
	"strconv"
)

// Port is a port of 127.0.0.1 that is kept. Make one with Keep.
type Port struct {
	number  int
	release func() error // nil once it was released
}

// Keep finds a free port and keeps it until Release. On Linux nobody else is given
// the number meanwhile, whether a server listens there or not; a server that sets
// SO_REUSEADDR, as servers do, can listen there at any time. On other systems the
// port is known to have been free, and no more.
func Keep() (*Port, error) { return keep() }

// Number is the port's number.
func (p *Port) Number() int { return p.number }

// Addr is its address: host and port.
func (p *Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Release gives the port back. It may be called again, and on a nil Port. It is not
// for concurrent use.
func (p *Port) Release() error {
	if p == nil || p.release == nil {
		return nil
	}
	release := p.release
	p.release = nil
	return release()
}
