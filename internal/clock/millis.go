package clock

import "time"

// MaxMillis is the last instant that can be written, the end of the year 9999, in Unix
// milliseconds.
const MaxMillis = 253402300799999

// Clamp is an instant in Unix milliseconds, within the years 1970 to 9999: what
// lies outside counts as the first or the last one there.
func Clamp(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1970:
		return 1
	case year > 9999:
		return MaxMillis
	}
	return max(1, t.UnixMilli())
}

// Instant is the time of an instant in Unix milliseconds; the zero time for zero, which
// is none.
func Instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Millis is the other way, as Clamp: a time that is set can never read as "not
// set", and none beyond the year 9999 wraps around into the past.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return Clamp(t)
}

// MillisOf is a duration in milliseconds, which ends at the longest that there is.
func MillisOf(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(max(-most, min(ms, most))) * time.Millisecond
}
