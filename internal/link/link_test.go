package link_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/link"
	"github.com/stretchr/testify/require"
)

// echo starts a server that answers each line with itself, and a link to it.
func echo(t *testing.T) *link.Link {
	t.Helper()
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	l, err := link.Start(server.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		require.NoError(t, server.Close())
		wg.Wait() // no connection outlives the link
	})
	return l
}

type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, l *link.Link) client {
	t.Helper()
	c, err := net.Dial("tcp4", l.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return client{c, bufio.NewReader(c)}
}

// connected is a link and a connection through it that works.
func connected(t *testing.T) (*link.Link, client) {
	t.Helper()
	l := echo(t)
	c := dial(t, l)
	_, err := c.says("a")
	require.NoError(t, err)
	return l, c
}

// says sends a line, and returns how long its answer took.
func (c client) says(line string) (time.Duration, error) {
	began := time.Now()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return 0, err
	}
	answer, err := c.lines.ReadString('\n')
	if err == nil && answer != line+"\n" {
		err = fmt.Errorf("%q came back as %q", line, answer)
	}
	return time.Since(began), err
}

func TestItTakesItsTime(t *testing.T) {
	l := echo(t)
	c := dial(t, l)
	await.Quick(t, "an answer", 20*time.Millisecond, func() {
		_, err := c.says("a")
		require.NoError(t, err)
	})
	l.Set(link.Way{Delay: 20 * time.Millisecond}, link.Way{Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond})
	for range 3 {
		took, err := c.says("b")
		require.NoError(t, err)
		require.GreaterOrEqual(t, took, 40*time.Millisecond)
	}
	l.Set(link.Way{}, link.Way{Delay: time.Hour})
	go func() {
		time.Sleep(10 * time.Millisecond)
		l.Set(link.Way{}, link.Way{})
	}()
	_, err := c.says("what is under way comes as soon as the link is fast again")
	require.NoError(t, err)
}

func TestItIsCut(t *testing.T) {
	l, c := connected(t)
	l.Cut()
	_, err := c.says("b")
	require.Error(t, err)
	_, err = net.Dial("tcp4", l.Addr())
	require.Error(t, err)
	require.NoError(t, l.Mend())
	require.NoError(t, l.Mend(), "it is well already")
	_, err = dial(t, l).says("c")
	require.NoError(t, err)
}

func TestItSwallows(t *testing.T) {
	l, before := connected(t)
	l.Silence()
	for _, c := range []client{before, dial(t, l)} {
		require.NoError(t, c.SetDeadline(time.Now().Add(50*time.Millisecond)))
		_, err := c.says("b")
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout(), "the connection stays: %v", err)
		require.NoError(t, c.SetDeadline(time.Time{}))
	}
	require.NoError(t, l.Mend())
	_, err := before.says("c")
	require.Error(t, err, "something was lost on it")
	_, err = dial(t, l).says("d")
	require.NoError(t, err)
}

// Changes and the end of a link never wait for what is under way, although clients leave in
// the middle of it.
func TestNobodyWaitsForWhoIsGone(t *testing.T) {
	l := echo(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp4", l.Addr())
				if err != nil {
					continue // it is cut
				}
				_ = c.SetDeadline(time.Now().Add(time.Duration(rand.IntN(10)) * time.Millisecond))
				for text := make([]byte, 1000); err == nil; _, err = c.Read(text) {
					_, _ = c.Write(text)
				}
				_ = c.Close()
			}
		})
	}
	for n := range 60 {
		l.Set(link.Way{Delay: time.Hour}, link.Way{Delay: time.Duration(n) * time.Millisecond})
		time.Sleep(2 * time.Millisecond)
		if n%3 == 0 {
			l.Cut()
		}
		require.NoError(t, l.Mend())
	}
	close(stop)
	wg.Wait()
	l.Set(link.Way{Delay: time.Hour}, link.Way{})
	_, err := fmt.Fprintln(dial(t, l), "still under way when the link ends")
	require.NoError(t, err)
	time.Sleep(10 * time.Millisecond)
}
