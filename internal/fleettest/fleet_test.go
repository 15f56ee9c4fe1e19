package fleettest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

const childEnv = "FOB_FLEETTEST_CHILD"

func TestMain(m *testing.M) {
	etcdtest.Main()
	if text := os.Getenv(childEnv); text != "" {
		if err := child(text); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	await.SideBySide(8)
	code := m.Run()
	engines.close()
	os.Exit(code)
}

// member is one process of a fleet.
type member struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	errText *strings.Builder
	ended   chan struct{}
	reaped  sync.Once
	ctx     context.Context // of all that is waited for

	seq atomic.Int64
	mu  sync.Mutex // guards what is below and writes to in
	at  map[int]chan reply
}

// begin starts a process and waits until it has a Manager.
func begin(t testing.TB, s setup) *member {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	m := &member{t: t, errText: new(strings.Builder), ended: make(chan struct{}), ctx: await.Context(t), at: make(map[int]chan reply)}
	m.cmd = exec.Command(self)
	m.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	m.cmd.Stderr = m.errText
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.in, err = m.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := m.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, m.cmd.Start())
	ready := m.expect(0, 1)
	go m.read(out)
	t.Cleanup(m.kill)
	_, err = m.wait(ready)
	require.NoError(t, err, "a process at its start")
	return m
}

func (m *member) expect(seq, replies int) chan reply {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan reply, replies)
	m.at[seq] = c
	return c
}

func (m *member) read(out io.Reader) {
	defer close(m.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return // killed in the middle of a line
		}
		m.mu.Lock()
		c := m.at[r.Seq]
		m.mu.Unlock()
		c <- r
	}
}

// send asks for something and returns where the answer will come.
func (m *member) send(req request) chan reply {
	replies := 1
	switch req.Do {
	case forEver:
		replies = 1 << 12
	case "watch":
		replies = 2
	}
	req.Seq = int(m.seq.Add(1))
	c := m.expect(req.Seq, replies)
	text, err := json.Marshal(req)
	if err != nil {
		panic(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.in.Write(append(text, '\n')) // if it is dead, no answer comes
	return c
}

// wait waits for an answer, as long as the process runs. One that gives none in all the time
// that there is says where it hangs, and is ended.
func (m *member) wait(c chan reply) (reply, error) {
	select {
	case r := <-c:
		return r, nil
	case <-m.ctx.Done():
		_ = m.cmd.Process.Signal(syscall.SIGQUIT) // it prints what its goroutines do, if it has not ended
		m.reap()
		return reply{}, fmt.Errorf("no answer: %s", m.errText)
	case <-m.ended:
		select {
		case r := <-c:
			return r, nil
		default:
			m.reap()
			return reply{}, fmt.Errorf("the process has ended: %s", m.errText)
		}
	}
}

// watch has the process verify a key again and again, and returns where the answer will
// come, once the key was accepted or refused for the first time.
func (m *member) watch(req request) chan reply {
	m.t.Helper()
	req.Do = "watch"
	c := m.send(req)
	_, err := m.wait(c)
	require.NoError(m.t, err)
	return c
}

// do asks and waits.
func (m *member) do(req request) reply {
	m.t.Helper()
	r, err := m.wait(m.send(req))
	require.NoError(m.t, err)
	return r
}

// sure asks until the answer is yes or no: a store may be slow, or have just come back.
func (m *member) sure(req request) (r reply) {
	m.t.Helper()
	await.Until(m.t, "an answer to "+req.Do, func() bool {
		r = m.do(req)
		return r.Err == "" || r.Reject
	})
	return r
}

// must asks, and fails the test unless it is done.
func (m *member) must(req request) reply {
	m.t.Helper()
	r := m.do(req)
	require.Empty(m.t, r.Err, "%s", req.Do)
	return r
}

// follows waits until the process follows the store's feed.
func (m *member) follows() {
	m.t.Helper()
	await.Until(m.t, "a process that follows the feed", func() bool { return m.must(request{Do: "health"}).Health.Following })
}

// knows verifies a key until the process has heard of its creation by the feed too, which
// makes it look anew: from then on it has the answer in memory.
func (m *member) knows(text string) {
	m.t.Helper()
	r, err := m.wait(m.watch(request{Text: text, For: 300 * time.Millisecond}))
	require.NoError(m.t, err)
	require.NotZero(m.t, r.Watch.Accepted)
	require.Zero(m.t, r.Watch.Refused)
}

func (m *member) signal(s os.Signal) { require.NoError(m.t, m.cmd.Process.Signal(s)) }

// kill ends the process at once.
func (m *member) kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	m.reap()
}

// reap waits until the process has ended and all that it printed was read.
func (m *member) reap() {
	<-m.ended
	m.reaped.Do(func() { _ = m.cmd.Wait() }) // it was killed
}

// fleet starts processes on one store, and waits until they follow its feed.
func fleet(t testing.TB, setups ...setup) []*member {
	t.Helper()
	all := make([]*member, len(setups))
	for i, s := range setups {
		all[i] = begin(t, s)
	}
	for _, m := range all {
		m.follows()
	}
	return all
}

// same is n equal setups.
func same(n int, s setup) []setup {
	all := make([]setup, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// each runs a test on every kind of store.
func each(t *testing.T, test func(t *testing.T, e engine)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres", "etcd"} {
		t.Run(kind, func(t *testing.T) { test(t, engines.get(t, kind)) })
	}
}
