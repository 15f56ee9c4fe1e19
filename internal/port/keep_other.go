//go:build !linux

package port

import (
	"errors"
	"fmt"
	"net"
)

// keep finds a port that is free now.
func keep() (*Port, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("port: an address of type %T", l.Addr()), err)
	}
	return &Port{number: at.Port}, nil
}
