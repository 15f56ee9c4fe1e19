package etcdtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// config is all that a member is told; it also goes to a child, as JSON.
type config struct {
	Name, Dir     string
	Client        string // host and port to listen on
	Peer          string // URL under which the others know it
	Initial       string
	Restart       bool
	NoSync        bool
	Quota         int64
	CA, Cert, Key string // files, for TLS
}

// Ticks of half of etcd's defaults: elections take half a second, and still do
// not happen for nothing on a busy machine.
const (
	tick     = 50
	election = 500
)

func (c config) embed() (*embed.Config, error) {
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.Dir
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e.LogLevel = "panic"
	e.EnableGRPCGateway = false // nobody speaks JSON here
	e.BcryptCost = 4            // passwords of tests, the least that bcrypt takes
	e.TickMs, e.ElectionMs = tick, election
	e.UnsafeNoFsync = c.NoSync
	e.QuotaBackendBytes = c.Quota
	e.InitialCluster = c.Initial
	e.InitialClusterToken = c.Initial // no two clusters have the same ID
	if c.Restart {
		e.ClusterState = embed.ClusterStateFlagExisting
	}
	scheme := "http://"
	if c.CA != "" {
		scheme = "https://"
		e.ClientTLSInfo.CertFile, e.ClientTLSInfo.KeyFile, e.ClientTLSInfo.TrustedCAFile = c.Cert, c.Key, c.CA
		e.ClientTLSInfo.ClientCertAuth = true
	}
	for where, at := range map[*[]url.URL]string{
		&e.ListenClientUrls: scheme + c.Client, &e.AdvertiseClientUrls: scheme + c.Client,
		&e.ListenPeerUrls: "http://127.0.0.1:0", &e.AdvertisePeerUrls: c.Peer,
	} {
		u, err := url.Parse(at)
		if err != nil {
			return nil, err
		}
		*where = []url.URL{*u}
	}
	return e, nil
}

// here is a member in this process.
type here struct{ etcd *embed.Etcd }

func startHere(c config) (running, error) {
	cfg, err := c.embed()
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return here{e}, nil
}

func (h here) peerAddr() string { return h.etcd.Peers[0].Addr().String() }
func (h here) kill()            { h.stop() }

// stop ends a member that has begun to serve, and also one that has not, because the
// others are not there: etcd's Close alone would wait for that.
func (h here) stop() {
	select {
	case <-h.etcd.Server.ReadyNotify():
	default:
		h.etcd.Server.Stop()
	}
	h.etcd.Close()
}

// childConfig is the environment variable that makes a program a member.
const childConfig = "FOB_ETCDTEST_MEMBER"

// Main is what a program calls first that starts clusters with
// Options.Processes, which run as copies of it. It returns at once in the program
// itself, and never in a copy.
func Main() {
	text := os.Getenv(childConfig)
	if text == "" {
		return
	}
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		_, _ = fmt.Println("error", err)
		os.Exit(1)
	}
	r, err := startHere(c)
	if err != nil {
		_, _ = fmt.Println("error", err)
		os.Exit(1)
	}
	_, _ = fmt.Println("peer", r.peerAddr())
	// The end of standard input is the wish, or the end, of who started it.
	_, _ = io.Copy(io.Discard, os.Stdin)
	// Without closing the listeners first, for which etcd waits as long as a watch
	// goes on.
	if h, ok := r.(here); ok {
		h.etcd.Server.Stop()
	}
	os.Exit(0)
}

// child is a member in a process of its own.
type child struct {
	cmd  *exec.Cmd
	in   io.Closer
	peer string
}

func startProcess(c config) (running, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childConfig+"="+string(text))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &child{cmd: cmd, in: in}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		p.kill()
		return nil, errors.New("a member ended before it began")
	}
	peer, ok := strings.CutPrefix(lines.Text(), "peer ")
	if !ok {
		p.kill()
		return nil, fmt.Errorf("a member says %q", lines.Text())
	}
	p.peer = peer
	return p, nil
}

func (p *child) peerAddr() string { return p.peer }

func (p *child) stop() {
	_ = p.in.Close() // a member that is gone has closed it
	t := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer t.Stop()
	_ = p.cmd.Wait() // how it ended does not matter
}

func (p *child) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.in.Close()
	_ = p.cmd.Wait()
}
