package schemas

import (
	"fmt"
	"math"
)

// Times as Debezium writes them under time.precision.mode=adaptive: what of a second the
// column keeps, Type.Precision, decides between milliseconds and microseconds. A negative
// Precision means that none was given, which is 6.

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
	microsPerMonth  = 2_629_800 * microsPerSecond // a month is 365.25/12 days
)

// What Debezium has for an infinite timestamp without time zone: the sentinels of
// PostgreSQL's Java driver taken as microseconds, +294247-01-10T04:00:25.2 and
// -290308-12-21T19:59:27.6. They go through AppendTimestamp as any other value does. An
// infinite date has none that would stand for it: it is ErrUnrepresentable.
const (
	TimestampInfinity         = 9223372036825200000
	TimestampNegativeInfinity = -9223372036832400000
)

// FractionDigits returns how many digits of a second's fraction a column of a time type
// keeps: 0 to 6.
func (t *Type) FractionDigits() int {
	if t.Precision < 0 || t.Precision > 6 {
		return 6
	}
	return t.Precision
}

// Millis says whether a Time or Timestamp of this type is written in milliseconds, which
// up to 3 digits it is, rather than in microseconds.
func (t *Type) Millis() bool { return t.FractionDigits() <= 3 }

// AppendDate appends a Date: days since 1970-01-01.
func AppendDate(dst []byte, days int32) []byte { return AppendInt(dst, days) }

// AppendTime appends a Time of micros since midnight: an int of milliseconds or a long of
// microseconds. 24:00:00 is a whole day.
func AppendTime(dst []byte, micros int64, t *Type) []byte {
	if t.Millis() {
		micros = floorDiv(micros, 1000)
	}
	return AppendLong(dst, micros)
}

// AppendTimestamp appends a Timestamp of micros since 1970-01-01 of its own clock: a long
// of milliseconds or of microseconds.
func AppendTimestamp(dst []byte, micros int64, t *Type) []byte {
	if t.Millis() {
		micros = floorDiv(micros, 1000)
	}
	return AppendLong(dst, micros)
}

// AppendZonedTimestamp appends a ZonedTimestamp of micros since 1970-01-01 UTC as text in
// UTC, 2024-05-06T07:08:09.100000Z. There are exactly as many fraction digits as the type
// keeps (6 if it does not say), for 0 digits none. A year beyond 9999 has a plus sign, one
// before Christ a minus sign: 1 BC is 0000, 44 BC is -0043. Infinity is written by
// AppendString as "infinity" or "-infinity".
func AppendZonedTimestamp(dst []byte, micros int64, t *Type) []byte {
	var room [40]byte
	return AppendString(dst, appendInstant(room[:0], micros, t.FractionDigits()))
}

// AppendZonedTime appends a ZonedTime of micros since midnight UTC as text, 07:08:09.1Z,
// with as many fraction digits as are needed. 24:00:00, a whole day, is written so; other
// values are taken modulo one day.
func AppendZonedTime(dst []byte, micros int64, _ *Type) []byte {
	if micros != microsPerDay {
		micros -= floorDiv(micros, microsPerDay) * microsPerDay
	}
	var room [24]byte
	b := appendClock(room[:0], micros)
	fraction, digits := micros%microsPerSecond, 6
	for ; digits > 0 && fraction%10 == 0; digits-- {
		fraction /= 10
	}
	if digits > 0 {
		b = appendPadded(append(b, '.'), fraction, digits)
	}
	return AppendString(dst, append(b, 'Z'))
}

// IntervalMicros returns an interval as Debezium's MicroDuration counts it: a month is
// 365.25/12 days, a day 24 hours. Beyond 64 bits it is ErrUnrepresentable.
func IntervalMicros(months, days int32, micros int64) (int64, error) {
	total, ok := addScaled(micros, int64(days), microsPerDay)
	if ok {
		total, ok = addScaled(total, int64(months), microsPerMonth)
	}
	if !ok {
		return 0, fmt.Errorf("write interval: %w", ErrUnrepresentable)
	}
	return total, nil
}

// AppendInterval appends an Interval, see IntervalMicros. On an error dst is returned as
// it was.
func AppendInterval(dst []byte, months, days int32, micros int64) ([]byte, error) {
	total, err := IntervalMicros(months, days, micros)
	if err != nil {
		return dst, err
	}
	return AppendLong(dst, total), nil
}

// addScaled returns base + n×unit, and whether it fits.
func addScaled(base, n, unit int64) (int64, bool) {
	if n > math.MaxInt64/unit || n < math.MinInt64/unit {
		return 0, false
	}
	sum := base + n*unit
	return sum, (sum > base) == (n > 0) || n == 0
}

// appendInstant appends ISO 8601 text in UTC with exactly digits fraction digits.
func appendInstant(b []byte, micros int64, digits int) []byte {
	days := floorDiv(micros, microsPerDay)
	clock := micros - days*microsPerDay
	year, month, day := civil(days)
	b = appendYear(b, year)
	b = appendPadded(append(b, '-'), int64(month), 2)
	b = appendPadded(append(b, '-'), int64(day), 2)
	b = appendClock(append(b, 'T'), clock)
	if digits > 0 {
		fraction := clock % microsPerSecond
		for i := digits; i < 6; i++ {
			fraction /= 10
		}
		b = appendPadded(append(b, '.'), fraction, digits)
	}
	return append(b, 'Z')
}

// appendYear appends a proleptic year as Java's ISO formatters do: at least 4 digits, a
// sign before more than 4 and before negative ones.
func appendYear(b []byte, year int64) []byte {
	switch {
	case year < 0:
		b, year = append(b, '-'), -year
	case year > 9999:
		b = append(b, '+')
	}
	digits := 4
	for limit := int64(10000); year >= limit; limit *= 10 {
		digits++
	}
	return appendPadded(b, year, digits)
}

func appendClock(b []byte, micros int64) []byte {
	seconds := micros / microsPerSecond
	b = appendPadded(b, seconds/3600, 2)
	b = appendPadded(append(b, ':'), seconds/60%60, 2)
	return appendPadded(append(b, ':'), seconds%60, 2)
}

// appendPadded appends the lowest digits of v, which is not negative.
func appendPadded(b []byte, v int64, digits int) []byte {
	start := len(b)
	for range digits {
		b = append(b, '0')
	}
	for i := len(b) - 1; i >= start; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}

// civil returns the proleptic Gregorian date that lies days after 1970-01-01.
func civil(days int64) (year int64, month, day int) {
	// Years begin in March here, so that the leap day is a year's last; eras are of 400
	// years. 719468 days lie between 0000-03-01 and 1970-01-01.
	days += 719468
	era := floorDiv(days, 146097)
	d := days - era*146097
	y := (d - d/1460 + d/36524 - d/146096) / 365
	d -= 365*y + y/4 - y/100
	m := (5*d + 2) / 153
	day = int(d - (153*m+2)/5 + 1)
	year = era*400 + y
	if m < 10 {
		return year, int(m) + 3, day
	}
	return year + 1, int(m) - 9, day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
