// Package clock reads the time: wall time, which credentials carry, and monotonic time,
// which says for how long an answer may be believed. It also keeps by how much the clocks
// of other processes differ (skew.go), and converts times to milliseconds (millis.go). It
// knows neither credentials nor the store.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// Moment is one reading of the clock. Credentials carry wall time. How long an answer may
// be believed is measured in monotonic time, which no step of the wall clock moves.
type Moment struct {
	MS     int64 // Unix milliseconds, as Clamp has them
	Mono   int64 // nanoseconds since Clock.Start
	Synced int64 // monotonic: up to when the feed has told of every change; only engine.Now sets it, before it reads the clock
	Floor  int64 // monotonic: nobody knows how long ago an instant before it was
}

// Age returns how long ago a monotonic instant was, in nanoseconds; Forever if nobody
// knows.
func (t Moment) Age(at int64) int64 {
	if at < t.Floor {
		return Forever
	}
	return t.Mono - at
}

// Wall returns the wall time, in Unix milliseconds, of a monotonic instant near this
// moment. It rounds down: a caller that is told what was so at that time must not be told a
// later one.
func (t Moment) Wall(mono int64) int64 {
	return t.MS - (t.Mono-mono+int64(time.Millisecond)-1)/int64(time.Millisecond)
}

// FeedAge returns how long ago the feed last proved that it has told of every change;
// negative if it never has.
func (t Moment) FeedAge() time.Duration {
	age := t.Age(t.Synced)
	if t.Synced == Never || age == Forever {
		return -1
	}
	return time.Duration(max(0, age))
}

// resyncAfter is how long a reading of the wall clock is continued with the monotonic
// clock. It bounds how late a step of the wall clock is noticed.
const resyncAfter = 100 * time.Millisecond

// Clock reads the time. It is safe for concurrent use after Start. time.Now asks the system
// twice, for wall time and for monotonic time, and the first of the two takes a sixth of a
// cached verification. So on the hot path only the monotonic clock is read, and the wall
// clock once per resyncAfter.
type Clock struct {
	Read   func() time.Time
	begun  time.Time
	system bool  // Read is time.Now
	stride int64 // nanoseconds; a reading that is later than the one before by more is a step ahead
	anchor atomic.Pointer[anchor]

	era      atomic.Pointer[era] // of a clock that is not the system's
	stepping sync.Mutex          // held while one era follows another
}

// era is the time between two steps of a clock. ahead is by how much monotonic time is
// ahead of the readings of the clock. floor is the monotonic instant before which nobody
// knows how long ago something was. last is the latest reading, or closedEra once another
// era has begun.
type era struct {
	ahead, floor int64
	last         atomic.Int64
}

// Never lies before every instant and Forever after every instant, for monotonic time and
// for milliseconds. Both leave room, so that a difference of two instants does not
// overflow.
const (
	Never   = -int64(1) << 62
	Forever = int64(1)<<62 - 1
)

// A reading that is older than the latest one by less than maxDisorder was taken out of
// order by another goroutine. If it is older by more, the clock stepped back.
const (
	maxDisorder = 10 * time.Millisecond
	maxLag      = time.Millisecond // the latest reading is stored only if it is later than the stored one by more
	// horizon is where monotonic time ends. No clock gets there by running. A clock that
	// gets there by its steps is not believed any more, so that everything is read anew.
	horizon   = int64(Forever / 2)
	closedEra = -int64(1) << 63
)

type anchor struct {
	at   time.Time
	wall int64 // Unix nanoseconds
	mono int64
}

// Start sets the function that reads the clock; nil is the clock of the system. A reading
// that is later than the one before by more than stride counts as a step ahead.
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

// MonoOf returns the monotonic instant of a time that the machine's clock gave, at most
// that of now. A Clock need not read the machine's clock, so the age of the time is what
// counts.
func (c *Clock) MonoOf(machine time.Time) int64 {
	return c.Now().Mono - int64(max(0, time.Since(machine)))
}

// Now reads the clock.
func (c *Clock) Now() Moment {
	if c.system {
		a := c.anchor.Load()
		if since := time.Since(a.at); since < resyncAfter {
			return Moment{MS: max(1, (a.wall+int64(since))/int64(time.Millisecond)), Mono: a.mono + int64(since), Floor: Never}
		}
	}
	now := c.Read()
	reading := int64(now.Sub(c.begun))
	if !c.system {
		mono, floor := horizon, Forever // the reading is lifetimes away from the first one
		if -horizon < reading && reading < horizon {
			mono, floor = c.forward(reading)
		}
		return Moment{MS: Clamp(now), Mono: mono, Floor: floor}
	}
	c.anchor.Store(&anchor{at: now, wall: now.UnixNano(), mono: reading})
	return Moment{MS: Clamp(now), Mono: reading, Floor: Never}
}

// forward makes monotonic time from the readings of a clock that may step. After a step
// nobody knows how much time has passed. So monotonic time goes on from where it was, and
// floor says that the age of everything before that is unknown. In this way no number of
// steps, in any direction, makes monotonic time overflow.
func (c *Clock) forward(reading int64) (mono, floor int64) {
	for {
		e := c.era.Load()
		last := e.last.Load()
		switch {
		case last == closedEra || reading < last-int64(maxDisorder) || reading > last+c.stride:
			c.step(e, reading)
			continue
		case reading > last+int64(maxLag) && !e.last.CompareAndSwap(last, reading):
			continue
		}
		return min(reading+e.ahead, horizon), e.floor
	}
}

// step begins a new era if the reading is far from the last one of e.
func (c *Clock) step(e *era, reading int64) {
	c.stepping.Lock()
	defer c.stepping.Unlock()
	if c.era.Load() != e {
		return // another goroutine has begun a new era
	}
	// A closed era gives out no later monotonic time than that of last and maxLag more.
	last := e.last.Swap(closedEra)
	next := &era{ahead: e.ahead, floor: e.floor}
	next.last.Store(last)
	if reading < last-int64(maxDisorder) || reading > last+c.stride {
		to := min(last+e.ahead+int64(maxLag)+1, horizon) // monotonic, of this reading
		next.ahead, next.floor = to-reading, to
		next.last.Store(reading)
		if to == horizon {
			next.floor = Forever
		}
	}
	c.era.Store(next)
}
