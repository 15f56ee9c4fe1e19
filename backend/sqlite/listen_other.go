//go:build !linux

package sqlite

import "time"

// listener hears when a file is written to, where the system can tell. Here nobody listens.
type listener struct{}

func listen(string, time.Duration) *listener { return nil }
func (l *listener) close()                   {}
func (l *listener) written() <-chan struct{} { return nil }
