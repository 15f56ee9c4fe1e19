package fob

import (
	"sync/atomic"
	"time"
)

// moment is one reading of the clock. Wall time is what credentials carry;
// monotonic time, which no step of the wall clock moves, is what bounds how long
// an answer may be believed.
type moment struct {
	ms   int64 // Unix milliseconds
	mono int64 // nanoseconds since the Manager began
}

// resync is how long a reading of the wall clock is carried on by the monotonic
// one. It bounds how late a step of the wall clock is noticed.
const resync = 100 * time.Millisecond

// clock reads the time. time.Now asks the system twice, for wall and for
// monotonic time, which is a sixth of a cached verification: on the hot path only
// the monotonic clock is read, and the wall clock once per resync.
type clock struct {
	read   func() time.Time
	begun  time.Time
	system bool // read is time.Now
	anchor atomic.Pointer[anchor]
}

type anchor struct {
	at   time.Time
	wall int64 // Unix nanoseconds
	mono int64
}

// start sets the clock; nil is the system's.
func (c *clock) start(read func() time.Time) {
	c.read, c.system = read, read == nil
	if c.system {
		c.read = time.Now
	}
	c.begun = c.read()
	c.anchor.Store(&anchor{at: c.begun, wall: c.begun.UnixNano()})
}

func (c *clock) now() moment {
	if c.system {
		a := c.anchor.Load()
		if since := time.Since(a.at); since < resync {
			return moment{ms: (a.wall + int64(since)) / int64(time.Millisecond), mono: a.mono + int64(since)}
		}
	}
	now := c.read()
	mono := int64(now.Sub(c.begun))
	if c.system {
		c.anchor.Store(&anchor{at: now, wall: now.UnixNano(), mono: mono})
	}
	return moment{ms: now.UnixMilli(), mono: mono}
}
