package retry

import (
	"context"
	"time"
)

const (
	backoffMin = 50 * time.Millisecond
	// BackoffMax is the longest pause of a Backoff, without the random part of it.
	BackoffMax = 2 * time.Second
)

// Backoff are the pauses between tries of something that is tried until it works. Each is
// twice as long as the one before, up to BackoffMax. The zero value begins with the
// shortest. It is for one goroutine.
type Backoff struct{ last time.Duration }

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), BackoffMax)
	return b.last
}

// Pause waits for the next pause, or until ctx ends. It is up to half as long again, so
// that many processes do not come back at the same instant.
func (b *Backoff) Pause(ctx context.Context) {
	pause := b.Next()
	Pause(ctx, pause+Jitter(pause/2))
}

// Reset begins with the shortest pause again.
func (b *Backoff) Reset() { b.last = 0 }
