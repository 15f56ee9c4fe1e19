package port

import (
	"errors"
	"fmt"
	"syscall"
)

// keep binds a socket and never listens on it. While it is bound, Linux gives its
// number to nobody who asks for any port, be it for a server or for a connection;
// and while it does not listen, a socket that has SO_REUSEADDR as well may.
func keep() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("port: socket: %w", err)
	}
	p := &Port{release: func() error { return syscall.Close(fd) }}
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var at syscall.Sockaddr
	if err == nil {
		at, err = syscall.Getsockname(fd)
	}
	bound, ok := at.(*syscall.SockaddrInet4)
	if err == nil && !ok {
		err = fmt.Errorf("an address of type %T", at)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port: bind: %w", err), p.Release())
	}
	p.number = bound.Port
	return p, nil
}
