package fob

import (
	"context"

	"github.com/fobkit/fob/internal/retry"
)

// protect makes a write that protects somebody else than whoever happens to call: the
// holder of a session whose secret somebody has copied, say. Once it is decided on it
// goes on, although the caller has hung up, and Close waits for it: whoever could end it
// by hanging up would decide whether it is made. It runs in the caller's goroutine, so
// that there is no queue from which it could be dropped, and takes retryFor at most.
//
// Writes on behalf of the caller end with the caller's context, and say what is then
// known of them. Those of upkeep are made again by the next.
func (m *Manager) protect(ctx context.Context, write func(context.Context) error) error {
	release, ok := m.hold()
	if !ok {
		return ErrClosed
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retry.Within)
	defer cancel()
	return write(ctx)
}

// hold makes Close wait until release is called. ok is false once Close has begun.
func (m *Manager) hold() (release func(), ok bool) {
	m.life.Lock()
	defer m.life.Unlock()
	if m.closed.Load() {
		return nil, false
	}
	m.done.Add(1)
	return m.done.Done, true
}
