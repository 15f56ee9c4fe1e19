package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fobkit/fob/internal/port"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options is the settings of a cluster. The zero Options gives members in this
// process, without TLS.
type Options struct {
	// Processes makes each member a process of its own, so that Kill is a SIGKILL.
	// The program must call Main first thing.
	Processes bool
	// TLS makes clients come over TLS, with a certificate of their own.
	TLS bool
	// NoSync leaves out fsync: a killed member still loses nothing, a machine that
	// loses power would.
	NoSync bool
	// QuotaBytes is the size at which a member refuses writes. Zero is etcd's own
	// default of 2 GiB.
	QuotaBytes int64
}

// Cluster is an etcd cluster. Make one with Start. Its methods are not for
// concurrent use, but for those that open clients.
type Cluster struct {
	opts    Options
	dir     string
	members []*member
	certs   *certs // nil without TLS
	closed  bool
}

// member is one of them. Others reach it through its proxy only, and its clients at a
// port that it keeps while it is stopped.
type member struct {
	cfg     config
	port    *port.Port
	proxy   *peerProxy
	id      uint64
	running running // nil while it is stopped, and where it could not start
}

// running is a member that runs.
type running interface {
	peerAddr() string // where it listens for the others
	stop()            // orderly
	kill()            // at once
}

// patience bounds what a cluster waits for, such as an election. Nothing that works
// takes so long, on however busy a machine: it is for what hangs.
const patience = 5 * time.Minute

// Start starts a cluster of that many members, at least one, and waits until it has a
// leader. A cluster of which a member cannot start is closed before the error returns.
func Start(members int, opts Options) (*Cluster, error) { return start(members, opts, nil) }

// start calls change, if it is set, before the members begin.
func start(members int, opts Options, change func(*Cluster)) (*Cluster, error) {
	if members < 1 {
		return nil, fmt.Errorf("etcdtest: a cluster of %d members", members)
	}
	dir, err := os.MkdirTemp("", "fob-etcd-")
	if err != nil {
		return nil, fmt.Errorf("etcdtest: %w", err)
	}
	c := &Cluster{opts: opts, dir: dir}
	err = c.layOut(members)
	if err == nil && change != nil {
		change(c)
	}
	for _, m := range c.members {
		if err == nil {
			err = c.run(m)
		}
	}
	if err == nil {
		err = c.identify()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("etcdtest: %w", err), c.Close())
	}
	return c, nil
}

// layOut gives each member its place, its address and its proxy, and starts none.
func (c *Cluster) layOut(n int) (err error) {
	if c.opts.TLS {
		if c.certs, err = newCerts(filepath.Join(c.dir, "certs")); err != nil {
			return err
		}
	}
	var initial []string
	for i := range n {
		m := new(member)
		c.members = append(c.members, m)
		if m.port, err = port.Keep(); err != nil {
			return err
		}
		if m.proxy, err = newPeerProxy(); err != nil {
			return err
		}
		m.cfg = config{
			Name: "m" + strconv.Itoa(i), Dir: filepath.Join(c.dir, strconv.Itoa(i)), Client: m.port.Addr(),
			Peer: "http://" + m.proxy.addr(), NoSync: c.opts.NoSync, Quota: c.opts.QuotaBytes,
		}
		if c.certs != nil {
			m.cfg.CA, m.cfg.Cert, m.cfg.Key = c.certs.files()
		}
		initial = append(initial, m.cfg.Name+"="+m.cfg.Peer)
	}
	for _, m := range c.members {
		m.cfg.Initial = strings.Join(initial, ",")
	}
	return nil
}

// run starts a member. One that cannot start is left stopped.
func (c *Cluster) run(m *member) error {
	start := startHere
	if c.opts.Processes {
		start = startProcess
	}
	r, err := start(m.cfg)
	if err != nil {
		return err
	}
	m.running = r
	m.proxy.setTarget(r.peerAddr())
	return nil
}

// identify waits for a leader and learns the IDs of the members, by which proxies
// know them.
func (c *Cluster) identify() error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // it was only asked
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := client.Get(ctx, "x"); err != nil { // linearizable: there is a leader
		return fmt.Errorf("no leader: %w", err)
	}
	list, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, found := range list.Members {
		for _, m := range c.members {
			if len(found.PeerURLs) == 1 && found.PeerURLs[0] == m.cfg.Peer {
				m.id = found.ID
			}
		}
	}
	return nil
}

// Addr is where a member listens for clients: host and port. It stays the member's own
// until Close, whether it runs or not (on Linux: elsewhere somebody may be given the
// port of a member that does not run).
func (c *Cluster) Addr(i int) string { return c.members[i].cfg.Client }

// Config is what a client needs to reach these members, or all if none is named.
// The caller may add to it.
func (c *Cluster) Config(members ...int) clientv3.Config {
	if len(members) == 0 {
		for i := range c.members {
			members = append(members, i)
		}
	}
	scheme := "http://"
	cfg := clientv3.Config{Logger: zap.NewNop(), DialTimeout: patience}
	if c.certs != nil {
		scheme, cfg.TLS = "https://", c.TLS()
	}
	for _, i := range members {
		cfg.Endpoints = append(cfg.Endpoints, scheme+c.Addr(i))
	}
	return cfg
}

// TLS is the client's side of the TLS that Options.TLS asks for, and nil without it.
func (c *Cluster) TLS() *tls.Config {
	if c.certs == nil {
		return nil
	}
	return c.certs.client.Clone()
}

// Client opens a client to these members, or to all if none is named. The caller
// closes it.
func (c *Cluster) Client(members ...int) (*clientv3.Client, error) {
	return clientv3.New(c.Config(members...))
}

// Leader is the member that leads, or -1 where none says so within five minutes.
func (c *Cluster) Leader() int {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, m := range c.members {
			if m.running == nil {
				continue
			}
			if leader, ok := c.leads(i); ok && leader == m.id && !m.proxy.alone() {
				return i
			}
		}
	}
	return -1
}

// leads asks one member who leads.
func (c *Cluster) leads(i int) (leader uint64, ok bool) {
	client, err := c.Client(i)
	if err != nil {
		return 0, false
	}
	defer func() { _ = client.Close() }() // it was only asked
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	status, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return 0, false
	}
	return status.Leader, true
}

// Stop stops a member in an orderly way.
func (c *Cluster) Stop(i int) {
	if m := c.members[i]; m.running != nil {
		m.running.stop()
		m.running = nil
	}
}

// Kill ends a member at once: with Options.Processes by SIGKILL, otherwise like
// Stop, for a process can not kill a part of itself.
func (c *Cluster) Kill(i int) {
	if m := c.members[i]; m.running != nil {
		m.running.kill()
		m.running = nil
	}
}

// Restart starts a member that was stopped or killed, on its data and at its
// address. It fails for one that runs, and after Close; where the member cannot
// start, it stays stopped.
func (c *Cluster) Restart(i int) error {
	m := c.members[i]
	if m.running != nil {
		return fmt.Errorf("etcdtest: restart: member %d runs", i)
	}
	if c.closed {
		return errors.New("etcdtest: restart: the cluster was closed")
	}
	m.cfg.Restart = true
	if err := c.run(m); err != nil {
		return fmt.Errorf("etcdtest: restart: %w", err)
	}
	return nil
}

// Isolate cuts a member off from the others; its clients still reach it.
func (c *Cluster) Isolate(i int) {
	for j, m := range c.members {
		if j == i {
			m.proxy.isolate()
		} else {
			m.proxy.exclude(c.members[i].id)
		}
	}
}

// Heal ends every Isolate.
func (c *Cluster) Heal() {
	for _, m := range c.members {
		m.proxy.admit()
	}
}

// Close stops the members that run and removes the data of all. It may be called
// again.
func (c *Cluster) Close() error {
	c.closed = true
	var errs []error
	for i, m := range c.members {
		c.Stop(i)
		if m.proxy != nil {
			m.proxy.close()
		}
		errs = append(errs, m.port.Release())
	}
	errs = append(errs, os.RemoveAll(c.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("etcdtest: %w", err)
	}
	return nil
}
