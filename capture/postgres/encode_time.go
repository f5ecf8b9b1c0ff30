package postgres

import (
	"bytes"

	"github.com/tailrace/tailrace/schemas"
)

// Dates and times as PostgreSQL writes them with DateStyle ISO, TimeZone UTC and
// IntervalStyle postgres. Source: the documentation's "Date/Time Output", and the
// functions EncodeDateTime and EncodeInterval of the server.

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
	maxTimeDays     = 106_751_991 // whole days in 64 bits of microseconds
)

func encodeDate(dst, text []byte, _ *column) ([]byte, error) {
	text, bc := cutBC(text)
	days, rest, ok := parseDate(text, bc)
	if !ok || len(rest) > 0 {
		return dst, infinityOr(text, errNotOfType)
	}
	if days != int64(int32(days)) {
		return dst, schemas.ErrUnrepresentable
	}
	return schemas.AppendDate(dst, int32(days)), nil
}

// infinityOr returns ErrUnrepresentable for an infinite date or time, else err.
func infinityOr(text []byte, err error) error {
	if infinite(text) != 0 {
		return schemas.ErrUnrepresentable
	}
	return err
}

// infinite returns 1 for "infinity", -1 for "-infinity", else 0.
func infinite(text []byte) int {
	switch string(text) {
	case "infinity":
		return 1
	case "-infinity":
		return -1
	}
	return 0
}

func encodeTime(dst, text []byte, c *column) ([]byte, error) {
	micros, rest, ok := parseClock(text)
	if !ok || len(rest) > 0 {
		return dst, errNotOfType
	}
	return schemas.AppendTime(dst, micros, c.typ), nil
}

func encodeTimestamp(dst, text []byte, c *column) ([]byte, error) {
	micros, rest, err := parseTimestamp(text)
	if err == nil && len(rest) == 0 {
		return schemas.AppendTimestamp(dst, micros, c.typ), nil
	}
	switch infinite(text) {
	case 1:
		return schemas.AppendLong(dst, schemas.TimestampInfinity), nil
	case -1:
		return schemas.AppendLong(dst, schemas.TimestampNegativeInfinity), nil
	}
	if err == nil {
		err = errNotOfType
	}
	return dst, err
}

func encodeZonedTimestamp(dst, text []byte, c *column) ([]byte, error) {
	if out, ok := appendCommonInstant(dst, text, c.typ.FractionDigits()); ok {
		return out, nil
	}
	micros, rest, err := parseTimestamp(text)
	if err == nil {
		offset, ok := parseOffset(rest)
		if !ok {
			return dst, errNotOfType
		}
		return schemas.AppendZonedTimestamp(dst, micros-offset, c.typ), nil
	}
	if infinite(text) != 0 {
		return schemas.AppendString(dst, text), nil
	}
	return dst, err
}

// appendCommonInstant is the short way for what nearly all values look like: in UTC, with a
// year of four digits, no more fraction digits than are kept. Then the text that is
// wanted differs from the one that is there by separators and zeros only:
//
//	2024-05-06 07:08:09.5+00    becomes, for 6 digits,    2024-05-06T07:08:09.500000Z
func appendCommonInstant(dst, text []byte, digits int) (out []byte, ok bool) {
	const seconds = len("2024-05-06 07:08:09")
	fraction := len(text) - seconds - len("+00") // with its point
	if fraction < 0 || fraction > digits+1 || fraction == 1 || !isCommonInstant(text[:seconds]) ||
		string(text[seconds+fraction:]) != "+00" {
		return dst, false
	}
	size := seconds + len("Z")
	if digits > 0 {
		size += 1 + digits
	}
	out = append(schemas.AppendLong(dst, int64(size)), text[:seconds]...)
	out[len(out)-len(" 07:08:09")] = 'T'
	if digits > 0 {
		out = append(out, ".000000"[:1+digits]...)
		at := len(out) - digits
		for i, c := range text[seconds : seconds+fraction] {
			if i == 0 && c != '.' || i > 0 && c-'0' > 9 {
				return dst, false
			}
			out[at-1+i] = c
		}
	}
	return append(out, 'Z'), true
}

// isCommonInstant says whether text, of 19 bytes, is YYYY-MM-DD HH:MM:SS. What is out of
// range it leaves to parseTimestamp.
func isCommonInstant(text []byte) bool {
	if text[4] != '-' || text[7] != '-' || text[10] != ' ' || text[13] != ':' || text[16] != ':' {
		return false
	}
	century, ok1 := twoDigits(text)
	year, ok2 := twoDigits(text[2:])
	month, ok3 := twoDigits(text[5:])
	day, ok4 := twoDigits(text[8:])
	hour, ok5 := twoDigits(text[11:])
	minute, ok6 := twoDigits(text[14:])
	second, ok7 := twoDigits(text[17:])
	return ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7 && century+year > 0 &&
		month > 0 && month <= 12 && day > 0 && day <= daysIn(month, century*100+year) && hour < 24 && minute < 60 && second < 60
}

// encodeZonedTime appends a timetz, whose text has the offset that was stored, in UTC.
func encodeZonedTime(dst, text []byte, c *column) ([]byte, error) {
	micros, rest, ok := parseClock(text)
	if !ok {
		return dst, errNotOfType
	}
	offset, ok := parseOffset(rest)
	if !ok {
		return dst, errNotOfType
	}
	micros -= offset
	if offset != 0 { // 24:00:00+00 stays; any other end of a day is the start of the next
		micros = ((micros % microsPerDay) + microsPerDay) % microsPerDay
	}
	return schemas.AppendZonedTime(dst, micros, c.typ), nil
}

// cutBC cuts off the mark of a year before Christ.
func cutBC(text []byte) (rest []byte, bc bool) {
	if n := len(text); n > 3 && text[n-1] == 'C' {
		return bytes.CutSuffix(text, []byte(" BC"))
	}
	return text, false
}

// parseTimestamp reads date and time of day; rest is what follows, without the mark of a
// year before Christ.
func parseTimestamp(text []byte) (micros int64, rest []byte, err error) {
	text, bc := cutBC(text)
	days, rest, ok := parseDate(text, bc)
	if !ok || len(rest) == 0 || rest[0] != ' ' && rest[0] != 'T' {
		return 0, nil, errNotOfType
	}
	clock, rest, ok := parseClock(rest[1:])
	if !ok {
		return 0, nil, errNotOfType
	}
	if days <= -maxTimeDays || days >= maxTimeDays {
		return 0, nil, schemas.ErrUnrepresentable
	}
	return days*microsPerDay + clock, rest, nil
}

// parseDate reads YYYY-MM-DD, with more digits for years that need them, as days since
// 1970-01-01 in the proleptic Gregorian calendar.
func parseDate(text []byte, bc bool) (days int64, rest []byte, ok bool) {
	year, i := int64(0), 0
	for i < len(text) && text[i]-'0' <= 9 && i < 8 {
		year = year*10 + int64(text[i]-'0')
		i++
	}
	if i < 4 || len(text) < i+6 || text[i] != '-' || text[i+3] != '-' {
		return 0, nil, false
	}
	month, ok1 := twoDigits(text[i+1:])
	day, ok2 := twoDigits(text[i+4:])
	if bc {
		year = 1 - year
	}
	if !ok1 || !ok2 || month < 1 || month > 12 || day < 1 || day > daysIn(month, year) {
		return 0, nil, false
	}
	return daysSinceEpoch(year, month, day), text[i+6:], true
}

func twoDigits(text []byte) (int64, bool) {
	if len(text) < 2 {
		return 0, false
	}
	a, b := text[0]-'0', text[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

func daysIn(month, year int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSinceEpoch counts from 1970-01-01. Years are taken to begin in March, so that the
// leap day is their last.
func daysSinceEpoch(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	leaps := floorDiv(year, 4) - floorDiv(year, 100) + floorDiv(year, 400)
	return year*365 + leaps + (153*(month-3)+2)/5 + day - 1 - 719468
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// parseClock reads HH:MM:SS with up to 6 fraction digits as microseconds; 24:00:00 is the
// latest.
func parseClock(text []byte) (micros int64, rest []byte, ok bool) {
	if len(text) < 8 || text[2] != ':' || text[5] != ':' {
		return 0, nil, false
	}
	hour, ok1 := twoDigits(text)
	minute, ok2 := twoDigits(text[3:])
	second, ok3 := twoDigits(text[6:])
	if !ok1 || !ok2 || !ok3 || hour > 24 || minute > 59 || second > 60 {
		return 0, nil, false
	}
	micros = ((hour*60+minute)*60 + second) * microsPerSecond
	fraction, rest, ok := parseFraction(text[8:])
	micros += fraction
	return micros, rest, ok && micros <= microsPerDay
}

// parseFraction reads a point and 1 to 6 digits, or nothing, as microseconds.
func parseFraction(text []byte) (micros int64, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '.' {
		return 0, text, true
	}
	i, unit := 1, int64(microsPerSecond)
	for ; i < len(text) && i <= 6 && text[i]-'0' <= 9; i++ {
		unit /= 10
		micros += int64(text[i]-'0') * unit
	}
	return micros, text[i:], i > 1
}

// parseOffset reads ±HH, ±HH:MM or ±HH:MM:SS, or Z, as microseconds east of Greenwich.
func parseOffset(text []byte) (micros int64, ok bool) {
	if string(text) == "+00" || string(text) == "Z" {
		return 0, true
	}
	if len(text) < 3 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	unit := int64(3600)
	for at := 1; at < len(text); at += 3 {
		v, ok := twoDigits(text[at:])
		if !ok || v > 59 || unit == 0 || at+2 < len(text) && text[at+2] != ':' {
			return 0, false
		}
		micros += v * unit * microsPerSecond
		unit /= 60
	}
	if text[0] == '-' {
		micros = -micros
	}
	return micros, text[len(text)-1] != ':'
}
