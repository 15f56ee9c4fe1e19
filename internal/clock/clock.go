// Package clock reads the time: wall time, which credentials carry, and monotonic time,
// which says for how long an answer may be believed.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// Moment is one reading of the clock. Wall time is what credentials carry;
// monotonic time, which no step of the wall clock moves, is what bounds how long
// an answer may be believed.
type Moment struct {
	MS     int64 // Unix milliseconds, as Clamp has them
	Mono   int64 // nanoseconds since the Manager began
	Synced int64 // answers.synced, read before the clock; only where Manager.moment says so
	Floor  int64 // of an older monotonic instant nobody knows how long ago it was
}

// Age is how long ago a monotonic instant was; forever where nobody knows.
func (t Moment) Age(at int64) int64 {
	if at < t.Floor {
		return Forever
	}
	return t.Mono - at
}

// Wall is the wall time in Unix milliseconds of a monotonic instant near this one, or a
// little earlier: what is told to be known as of it must not be claimed of a later one.
func (t Moment) Wall(mono int64) int64 {
	return t.MS - (t.Mono-mono+int64(time.Millisecond)-1)/int64(time.Millisecond)
}

// FeedAge is how long ago the feed last proved that it has told everything; negative if
// it never has.
func (t Moment) FeedAge() time.Duration {
	age := t.Age(t.Synced)
	if t.Synced == Never || age == Forever {
		return -1
	}
	return time.Duration(max(0, age))
}

// resync is how long a reading of the wall clock is carried on by the monotonic
// one. It bounds how late a step of the wall clock is noticed.
const resync = 100 * time.Millisecond

// Clock reads the time. time.Now asks the system twice, for wall and for
// monotonic time, which is a sixth of a cached verification: on the hot path only
// the monotonic clock is read, and the wall clock once per resync.
type Clock struct {
	Read   func() time.Time
	begun  time.Time
	system bool  // read is time.Now
	stride int64 // a reading that is later than the one before by more is a step ahead
	anchor atomic.Pointer[anchor]

	era      atomic.Pointer[era] // of a clock that is not the system's
	stepping sync.Mutex          // held while one era follows another
}

// era is the time between two steps of a clock: how far monotonic time is ahead of its
// readings, from which monotonic instant on it is known how long ago something was, and
// the latest reading; closedEra once another one has begun.
type era struct {
	ahead, floor int64
	last         atomic.Int64
}

// Never lies before every instant and Forever behind every one, with room to subtract
// from, be they monotonic or in milliseconds.
const (
	Never   = -int64(1) << 62
	Forever = int64(1)<<62 - 1
)

// A reading that is older than another by less than slack came out of order; by
// more, the clock stepped back.
const (
	slack = 10 * time.Millisecond
	lag   = time.Millisecond // by so much the latest reading is kept up with
	// horizon is where monotonic time ends. No clock gets there by itself; one that
	// does by its steps is not believed any more, so that everything is read anew.
	horizon   = int64(Forever / 2)
	closedEra = -int64(1) << 63
)

type anchor struct {
	at   time.Time
	wall int64 // Unix nanoseconds
	mono int64
}

// Start sets the clock; nil is the system's. A reading that is later than the one before
// by more than stride is a step ahead.
func (c *Clock) Start(read func() time.Time, stride time.Duration) {
	c.stride = int64(stride)
	c.era.Store(&era{floor: Never})
	c.Read, c.system = read, read == nil
	if c.system {
		c.Read = time.Now
	}
	c.begun = c.Read()
	c.anchor.Store(&anchor{at: c.begun, wall: c.begun.UnixNano()})
}

// MonoOf is the monotonic instant, now at the latest, of a time that the machine's clock
// gave: this Clock need not be the machine's.
func (c *Clock) MonoOf(machine time.Time) int64 {
	return c.Now().Mono - int64(max(0, time.Since(machine)))
}

// Now reads the clock.
func (c *Clock) Now() Moment {
	if c.system {
		a := c.anchor.Load()
		if since := time.Since(a.at); since < resync {
			return Moment{MS: max(1, (a.wall+int64(since))/int64(time.Millisecond)), Mono: a.mono + int64(since), Floor: Never}
		}
	}
	now := c.Read()
	reading := int64(now.Sub(c.begun))
	if !c.system {
		mono, floor := horizon, Forever // lifetimes away from where it began
		if -horizon < reading && reading < horizon {
			mono, floor = c.forward(reading)
		}
		return Moment{MS: Clamp(now), Mono: mono, Floor: floor}
	}
	c.anchor.Store(&anchor{at: now, wall: now.UnixNano(), mono: reading})
	return Moment{MS: Clamp(now), Mono: reading, Floor: Never}
}

// forward makes monotonic time of the readings of a clock that may step. After a step
// nobody knows how long ago anything before it was: monotonic time goes on from
// where it was, and the floor says that what lies below is of unknown age. So no number
// of steps, in any direction, makes monotonic time overflow.
func (c *Clock) forward(reading int64) (mono, floor int64) {
	for {
		e := c.era.Load()
		last := e.last.Load()
		switch {
		case last == closedEra || reading < last-int64(slack) || reading > last+c.stride:
			c.step(e, reading)
			continue
		case reading > last+int64(lag) && !e.last.CompareAndSwap(last, reading):
			continue
		}
		return min(reading+e.ahead, horizon), e.floor
	}
}

// step begins the era of a reading that is far from the last one of e.
func (c *Clock) step(e *era, reading int64) {
	c.stepping.Lock()
	defer c.stepping.Unlock()
	if c.era.Load() != e {
		return // somebody else did
	}
	// Closed, it gives out no later time than what is read here and lag more.
	last := e.last.Swap(closedEra)
	next := &era{ahead: e.ahead, floor: e.floor}
	next.last.Store(last)
	if reading < last-int64(slack) || reading > last+c.stride {
		to := min(last+e.ahead+int64(lag)+1, horizon) // monotonic, of this reading
		next.ahead, next.floor = to-reading, to
		next.last.Store(reading)
		if to == horizon {
			next.floor = Forever
		}
	}
	c.era.Store(next)
}
