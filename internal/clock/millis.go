package clock

import "time"

// MaxMillis is the last instant that can be written, the end of the year 9999, in Unix
// milliseconds.
const MaxMillis = 253402300799999

// Clamp returns an instant in Unix milliseconds, within the years 1970 to 9999: an instant
// that lies outside becomes the first or the last one of these years.
func Clamp(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1970:
		return 1
	case year > 9999:
		return MaxMillis
	}
	return max(1, t.UnixMilli())
}

// Instant returns the time of an instant in Unix milliseconds. Zero is "not set" and
// becomes the zero time.
func Instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Millis is the reverse of Instant, with the bounds of Clamp: a time that is set never
// becomes "not set", and a time beyond the year 9999 does not wrap around into the past.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return Clamp(t)
}

// MillisOf returns the duration of a number of milliseconds, at most the longest duration
// that there is.
func MillisOf(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(max(-most, min(ms, most))) * time.Millisecond
}
