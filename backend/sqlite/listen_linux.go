package sqlite

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"
	"time"
)

// listener hears when a file is written to, by whichever process. It rests after each
// time, so that a busy file does not wake it for every write.
type listener struct {
	file  *os.File
	rest  time.Duration
	heard chan struct{} // a flag; closed when nothing will be heard any more
	stop  chan struct{}
	done  sync.WaitGroup
}

// listen begins to listen to a file. It returns nil where the system cannot: processes may
// have only so many listeners.
func listen(name string, rest time.Duration) *listener {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	l := &listener{file: os.NewFile(uintptr(fd), "inotify"), rest: rest, heard: make(chan struct{}, 1), stop: make(chan struct{})}
	if _, err := syscall.InotifyAddWatch(fd, name, syscall.IN_MODIFY|syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF); err != nil {
		_ = l.file.Close()
		return nil
	}
	l.done.Go(l.hear)
	return l
}

// close ends the listener, if there is one.
func (l *listener) close() {
	if l == nil {
		return
	}
	close(l.stop)
	_ = l.file.Close() // which ends a Read
	l.done.Wait()
}

// written has a value when the file was written to; nil where nobody listens.
func (l *listener) written() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.heard
}

func (l *listener) hear() {
	defer close(l.heard)
	events := make([]byte, 64*syscall.SizeofInotifyEvent)
	for {
		n, err := l.file.Read(events)
		if err != nil || isGone(events[:n]) {
			return
		}
		select {
		case l.heard <- struct{}{}:
		default:
		}
		select {
		case <-l.stop:
			return
		case <-time.After(l.rest):
		}
	}
}

// isGone reports whether one of these events says that the file is there no longer, or not
// under this name. Those of a file, unlike those of a directory, have no name behind them.
func isGone(events []byte) bool {
	for ; len(events) >= syscall.SizeofInotifyEvent; events = events[syscall.SizeofInotifyEvent:] {
		if binary.NativeEndian.Uint32(events[4:])&^syscall.IN_MODIFY != 0 { // the mask
			return true
		}
	}
	return false
}
