package fob

import (
	"sync"
	"sync/atomic"
	"time"
)

// moment is one reading of the clock. Wall time is what credentials carry;
// monotonic time, which no step of the wall clock moves, is what bounds how long
// an answer may be believed.
type moment struct {
	ms     int64 // Unix milliseconds; 1 before 1970, as millis has it
	mono   int64 // nanoseconds since the Manager began
	synced int64 // answers.synced, read before the clock; only where Manager.moment says so
}

// wall is the wall time in Unix milliseconds of a monotonic instant near this one, or a
// little earlier: what is told to be known as of it must not be claimed of a later one.
func (t moment) wall(mono int64) int64 {
	return t.ms - (t.mono-mono+int64(time.Millisecond)-1)/int64(time.Millisecond)
}

// feedAge is how long ago the feed last proved that it has told everything; negative if
// it never has.
func (t moment) feedAge() time.Duration {
	if t.synced == never {
		return -1
	}
	return time.Duration(max(0, t.mono-t.synced))
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

	// Of a clock that is not the system's: the latest reading, and how far ahead of
	// the readings monotonic time has got by their steps back.
	last, ahead atomic.Int64
	stepping    sync.Mutex // held while both change
}

// A reading that is older than another by less than slack came out of order; by
// more, the clock stepped back. Then monotonic time goes on from far ahead.
const (
	slack = 10 * time.Millisecond
	leap  = int64(2*maxStaleness + maxStaleIfError)
)

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
			return moment{ms: max(1, (a.wall+int64(since))/int64(time.Millisecond)), mono: a.mono + int64(since)}
		}
	}
	now := c.read()
	mono := int64(now.Sub(c.begun))
	if !c.system {
		return moment{ms: max(1, now.UnixMilli()), mono: c.forward(mono)}
	}
	c.anchor.Store(&anchor{at: now, wall: now.UnixNano(), mono: mono})
	return moment{ms: max(1, now.UnixMilli()), mono: mono}
}

// forward makes monotonic time of the readings of a clock that may step back. After
// such a step nobody knows how long an answer has been believed: the leap makes
// every one too old.
func (c *clock) forward(reading int64) int64 {
	last := c.last.Load()
	if reading < last-int64(slack) {
		c.stepping.Lock()
		if last = c.last.Load(); reading < last-int64(slack) {
			c.ahead.Add(last - reading + leap)
			c.last.Store(reading) // last: who sees it sees the leap
		}
		c.stepping.Unlock()
	} else if reading > last+int64(time.Millisecond) {
		c.last.CompareAndSwap(last, reading)
	}
	return reading + c.ahead.Load()
}
