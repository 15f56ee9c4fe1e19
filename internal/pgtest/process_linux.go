package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// account is the user that servers run as when this process is root's.
func account() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		id, err1 := strconv.ParseUint(u.Uid, 10, 32)
		group, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return uint32(id), uint32(group), true
		}
	}
	return 0, 0, false
}

// unprivileged are the attributes of a process that runs as that user and ends
// when this one does.
func unprivileged() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT} // PostgreSQL's immediate shutdown
	if uid, gid, ok := account(); ok {
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return attr
}

// giveAway makes the user that servers run as the owner of a file.
func giveAway(name string) error {
	uid, gid, ok := account()
	if !ok {
		return nil
	}
	if err := os.Chown(name, int(uid), int(gid)); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// process is one that was started here.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and was waited for
	err   error         // how; read it after ended
}

// launch starts a process from a thread that lasts as long as the process does:
// the signal at a parent's death is sent when the thread ends.
func launch(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = unprivileged()
	cmd.SysProcAttr.Setpgid = true // an interrupt at the terminal is the test's to handle
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("pgtest: start %s: %w", filepath.Base(cmd.Path), err)
	}
	return p, nil
}

func (p *process) signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// kill ends the process and its children at once, and waits until they are gone:
// a server does not start while one of an earlier one is there.
func (p *process) kill() {
	// Stopped, it makes no more children and waits for none: nobody else has its
	// number or theirs. One that has ended by itself may have lost its number.
	if p.signal(syscall.SIGSTOP) != nil {
		<-p.ended
		return
	}
	children := childrenOf(p.cmd.Process.Pid)
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	_ = p.signal(syscall.SIGKILL)
	<-p.ended
	for deadline := time.Now().Add(patience); len(children) > 0 && time.Now().Before(deadline); {
		if syscall.Kill(children[0], 0) != nil || zombie(children[0]) {
			children = children[1:]
			continue
		}
		time.Sleep(time.Millisecond)
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) (children []int) {
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range all {
		if _, parent := stat(dir); parent == pid {
			child, _ := strconv.Atoi(filepath.Base(dir)) // digits by the pattern
			children = append(children, child)
		}
	}
	return children
}

func zombie(pid int) bool {
	state, _ := stat(filepath.Join("/proc", strconv.Itoa(pid)))
	return state == 'Z'
}

// stat reads the state and the parent of a process, zeros for one that is gone.
func stat(dir string) (state byte, parent int) {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, 0
	}
	// The name, in parentheses, may hold anything: what follows is after the last.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(string(fields[1])) // 0, nobody's, for what is no number
	return fields[0][0], parent
}
