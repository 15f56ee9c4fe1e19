package claims

// instant reads a known claim that is a time, and rounds it to whole milliseconds: up if up
// is set, otherwise down. Its callers round so that a token begins later and ends earlier.
func (r *reader) instant(up bool) int64 {
	ms, more, ok := parseInstant(r.text())
	if !ok || ms <= 0 {
		r.fail("not a time of RFC 3339 after 1970-01-01T00:00:00Z")
		return 0
	}
	if up && more {
		ms++
	}
	// Only an offset or the rounding can lead beyond maxMillis, because a year has four
	// digits.
	if ms > maxMillis {
		r.fail("out of range")
		return 0
	}
	return ms
}

// parseInstant reads the date-time of RFC 3339 §5.6 in the form of PASETO: capital T and Z,
// and a point before the fraction. Package time accepts more than that. There are no leap
// seconds, because Unix time has none.
//
// more reports that the text also has a fraction of a millisecond.
func parseInstant(s string) (ms int64, more, ok bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || len(s) > len("2006-01-02T15:04:05.999999999+00:00") ||
		s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return 0, false, false
	}
	bad := false
	number := func(text string, least, most int64) int64 {
		var n int64
		for i := range len(text) {
			if text[i] < '0' || text[i] > '9' {
				bad = true
				return 0
			}
			n = n*10 + int64(text[i]-'0')
		}
		bad = bad || n < least || n > most
		return n
	}
	year, month := number(s[:4], 1970, 9999), number(s[5:7], 1, 12)
	if bad {
		return 0, false, false
	}
	day := number(s[8:10], 1, daysIn(year, month))
	seconds := daysSince1970(year, month, day)*86400 +
		number(s[11:13], 0, 23)*3600 + number(s[14:16], 0, 59)*60 + number(s[17:19], 0, 59)
	rest := s[19:]
	if rest[0] == '.' {
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			digit := int64(rest[n] - '0')
			if n <= 3 {
				ms += digit * [...]int64{100, 10, 1}[n-1]
			} else {
				more = more || digit != 0
			}
			n++
		}
		if n == 1 || n > 10 || n == len(rest) {
			return 0, false, false
		}
		rest = rest[n:]
	}
	switch {
	case rest == "Z":
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		offset := number(rest[1:3], 0, 23)*3600 + number(rest[4:6], 0, 59)*60
		if rest[0] == '+' {
			offset = -offset
		}
		seconds += offset
	default:
		return 0, false, false
	}
	return seconds*1000 + ms, more, !bad
}

func isLeapYear(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int64) int64 {
	switch {
	case month == 2 && isLeapYear(year):
		return 29
	case month == 2:
		return 28
	case month == 4 || month == 6 || month == 9 || month == 11:
		return 30
	}
	return 31
}

// daysSince1970 returns the number of days from 1970-01-01 to a date, in the Gregorian
// calendar.
func daysSince1970(year, month, day int64) int64 {
	y := year - 1
	days := y*365 + y/4 - y/100 + y/400 - 719162 // 719162 is the number of days before 1970-01-01
	for m := range month - 1 {
		days += daysIn(year, m+1)
	}
	return days + day - 1
}
