package schemas

import (
	"encoding/binary"
	"math/big"
	"strconv"
)

// Values that are numbers or bytes in Avro, as text for people and for targets that take
// text: decimals with their point, times in ISO 8601.

// AppendDecimalText appends a Decimal's digits with its sign and point, and no exponent: raw
// is a big-endian two's complement, of the number times 10^scale.
func AppendDecimalText(dst, raw []byte, scale int) []byte {
	if len(raw) > 8 {
		return appendBigDecimal(dst, raw, scale)
	}
	var room [8]byte
	if len(raw) > 0 && raw[0] >= 0x80 {
		room = [8]byte{255, 255, 255, 255, 255, 255, 255, 255}
	}
	copy(room[8-len(raw):], raw)
	v := int64(binary.BigEndian.Uint64(room[:]))
	u := uint64(v)
	if v < 0 {
		dst, u = append(dst, '-'), -u
	}
	var digits [20]byte
	return appendPoint(dst, strconv.AppendUint(digits[:0], u, 10), scale)
}

func appendBigDecimal(dst, raw []byte, scale int) []byte {
	v := new(big.Int).SetBytes(raw)
	if raw[0] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(raw))))
		dst = append(dst, '-')
		v.Neg(v)
	}
	return appendPoint(dst, v.Append(nil, 10), scale)
}

// appendPoint appends digits with scale of them after the point.
func appendPoint(dst, digits []byte, scale int) []byte {
	if scale <= 0 {
		return append(dst, digits...)
	}
	if len(digits) <= scale {
		dst = append(dst, '0', '.')
		for range scale - len(digits) {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[:len(digits)-scale]...)
	return append(append(dst, '.'), digits[len(digits)-scale:]...)
}

// AppendDateText appends a Date, days since 1970-01-01, as 2024-05-06. A year beyond 9999 has
// a plus sign, one before Christ a minus sign: 1 BC is 0000, 44 BC is -0043.
func AppendDateText(dst []byte, days int64) []byte {
	year, month, day := civil(days)
	dst = appendPadded(append(appendYear(dst, year), '-'), int64(month), 2)
	return appendPadded(append(dst, '-'), int64(day), 2)
}

// AppendTimeText appends a Time, as it stands in Avro: 07:08:09.123, with three or six digits
// of a second's fraction.
func AppendTimeText(dst []byte, v int64, t *Type) []byte {
	if t.Millis() {
		return appendPadded(append(appendClock(dst, v*1000), '.'), v%1000, 3)
	}
	return appendPadded(append(appendClock(dst, v), '.'), v%microsPerSecond, 6)
}

// AppendTimestampText appends a Timestamp, as it stands in Avro: 2024-05-06T07:08:09.123, with
// three or six digits of a second's fraction, and no zone. The two values that stand for
// infinity are infinity and -infinity.
func AppendTimestampText(dst []byte, v int64, t *Type) []byte {
	perSecond, infinity, negative := int64(microsPerSecond), int64(TimestampInfinity), int64(TimestampNegativeInfinity)
	if t.Millis() {
		perSecond, infinity, negative = 1000, infinity/1000, negative/1000
	}
	switch v {
	case infinity:
		return append(dst, "infinity"...)
	case negative:
		return append(dst, "-infinity"...)
	}
	perDay := 86_400 * perSecond
	days := floorDiv(v, perDay)
	dst = append(AppendDateText(dst, days), 'T')
	return AppendTimeText(dst, v-days*perDay, t)
}

// AppendInstantText appends micros since 1970-01-01 UTC as 2024-05-06T07:08:09.123456Z.
func AppendInstantText(dst []byte, micros int64) []byte { return appendInstant(dst, micros, 6) }

// AppendIntervalText appends an Interval, in microseconds, as PT3.5S, seconds only: how many
// of them were months or days is not known any more.
func AppendIntervalText(dst []byte, micros int64) []byte {
	u := uint64(micros)
	if micros < 0 {
		dst, u = append(dst, '-'), -u
	}
	dst = strconv.AppendUint(append(dst, "PT"...), u/microsPerSecond, 10)
	if fraction := u % microsPerSecond; fraction > 0 {
		dst = appendPadded(append(dst, '.'), int64(fraction), 6)
	}
	return append(dst, 'S')
}
