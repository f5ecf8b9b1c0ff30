package postgres

import (
	"bytes"
	"math"

	"github.com/tailrace/tailrace/schemas"
)

func encodeInterval(dst, text []byte, _ *column) ([]byte, error) {
	months, days, micros, ok := parseInterval(text)
	if !ok {
		return dst, infinityOr(text, errNotOfType)
	}
	return schemas.AppendInterval(dst, months, days, micros)
}

// parseInterval reads an interval in the style postgres:
//
//	1 year 2 mons -3 days +04:05:06.789
//
// of which each part may be missing, but for 00:00:00.
func parseInterval(text []byte) (months, days int32, micros int64, ok bool) {
	var m, d int64
	for len(text) > 0 {
		word, rest, _ := bytes.Cut(text, []byte{' '})
		if bytes.IndexByte(word, ':') >= 0 {
			micros, ok = parseHours(word)
			ok = ok && len(rest) == 0
			break
		}
		n, isInt := parseInt(bytes.TrimPrefix(word, []byte{'+'}))
		unit, after, _ := bytes.Cut(rest, []byte{' '})
		if !isInt || n != int64(int32(n)) {
			return 0, 0, 0, false
		}
		switch string(unit) {
		case "year", "years":
			m += n * 12
		case "mon", "mons":
			m += n
		case "day", "days":
			d += n
		default:
			return 0, 0, 0, false
		}
		text, ok = after, true
	}
	fits := m == int64(int32(m)) && d == int64(int32(d))
	return int32(m), int32(d), micros, ok && fits
}

// parseHours reads ±H…H:MM:SS.ffffff; there may be as many hours as fit.
func parseHours(text []byte) (micros int64, ok bool) {
	sign := int64(1)
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			sign = -1
		}
		text = text[1:]
	}
	colon := bytes.IndexByte(text, ':')
	if colon < 1 || colon > 18 || len(text) < colon+6 || text[colon+3] != ':' {
		return 0, false
	}
	hours, ok1 := parseInt(text[:colon])
	minutes, ok2 := twoDigits(text[colon+1:])
	seconds, ok3 := twoDigits(text[colon+4:])
	fraction, rest, ok4 := parseFraction(text[colon+6:])
	if !ok1 || !ok2 || !ok3 || !ok4 || hours < 0 || len(rest) > 0 ||
		hours > math.MaxInt64/(3600*microsPerSecond)-1 {
		return 0, false
	}
	return sign * (((hours*60+minutes)*60+seconds)*microsPerSecond + fraction), true
}
