package pgtest

import "os/exec"

// KillEnded kills a process that has ended and was waited for.
func KillEnded(cmd *exec.Cmd) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	close(p.ended)
	p.kill()
}
