package port_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/fobkit/fob/internal/port"
	"github.com/stretchr/testify/require"
)

// Nobody who asks for any port gets one that is kept, be it for a server or for a
// connection. Of about 28,000 ports 200 are kept, so that each round would find some.
func TestNobodyElseGetsAPortThatIsKept(t *testing.T) {
	kept := map[int]bool{}
	for range 200 {
		p, err := port.Keep()
		require.NoError(t, err)
		defer func() { require.NoError(t, p.Release()) }()
		require.False(t, kept[p.Number()], "kept twice")
		kept[p.Number()] = true
	}
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	free := func(at net.Addr, whose string) {
		t.Helper()
		addr, ok := at.(*net.TCPAddr)
		require.True(t, ok)
		require.False(t, kept[addr.Port], "port %d is a %s's", addr.Port, whose)
	}
	for range 2000 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		free(l.Addr(), "server")
		require.NoError(t, l.Close())
		c, err := net.Dial("tcp4", server.Addr().String())
		require.NoError(t, err)
		free(c.LocalAddr(), "connection")
		require.NoError(t, c.Close())
	}
}

// Its owner's server listens there, stops, and listens there again; between, a
// connection is refused.
func TestAServerListensWhereAPortIsKept(t *testing.T) {
	p, err := port.Keep()
	require.NoError(t, err)
	for range 3 {
		l, err := net.Listen("tcp", p.Addr())
		require.NoError(t, err)
		c, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
		_, err = net.Dial("tcp", p.Addr())
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
	require.NoError(t, p.Release())
	require.NoError(t, p.Release(), "again")
	var none *port.Port
	require.NoError(t, none.Release())
}
