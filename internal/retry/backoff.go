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

// Backoff gives the pauses between tries of something that is tried until it succeeds. Each
// pause is twice as long as the one before, up to BackoffMax. The zero value begins with
// the shortest pause. It is for one goroutine.
type Backoff struct{ last time.Duration }

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, backoffMin), BackoffMax)
	return b.last
}

// Pause waits for the next pause and up to half of it more, or until ctx ends. The random
// part keeps many processes from coming back at the same instant.
func (b *Backoff) Pause(ctx context.Context) {
	pause := b.Next()
	Pause(ctx, pause+Jitter(pause/2))
}

// Reset makes the next pause the shortest one again.
func (b *Backoff) Reset() { b.last = 0 }
