package schemas

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrUnrepresentable says that a value has no place in the Avro type of its column: NaN or
// an infinity as a decimal, an interval beyond 64 bits of microseconds.
var ErrUnrepresentable = errors.New("value cannot be represented in the column's Avro type")

const (
	shortDigits = 18      // as many decimal digits always fit an int64
	maxDigits   = 1 << 18 // PostgreSQL's numeric ends at 147,455; multiplying out is quadratic
)

// AppendDecimal appends a Decimal: the unscaled value of text at scale as length-prefixed
// two's complement, big-endian, in as few bytes as Java's BigInteger.toByteArray gives.
//
// text is decimal digits with an optional sign and point, without an exponent, as
// PostgreSQL writes numeric. Missing fraction digits count as zeros; digits beyond scale
// must be zeros. A negative scale is taken as 0, as Derive does. NaN and infinities are
// ErrUnrepresentable. On an error dst is returned as it was.
func AppendDecimal(dst, text []byte, scale int) ([]byte, error) {
	scale = max(scale, 0)
	if v, ok := parseShort(text, scale); ok {
		return appendUnscaled(dst, v), nil
	}
	d, err := splitDecimal(text)
	if err != nil {
		return dst, err
	}
	if len(d.fraction) > scale {
		if len(bytes.TrimRight(d.fraction[scale:], "0")) > 0 {
			return dst, fmt.Errorf("write decimal: more than %d fraction digits", scale)
		}
		d.fraction = d.fraction[:scale]
	}
	return d.append(dst, scale)
}

// AppendVarDecimal appends a VarDecimal, the record VariableScaleDecimal{scale, value}:
// fraction digits without trailing zeros give the scale. For text and errors see
// AppendDecimal.
func AppendVarDecimal(dst, text []byte) ([]byte, error) {
	d, err := splitDecimal(text)
	if err != nil {
		return dst, err
	}
	d.fraction = bytes.TrimRight(d.fraction, "0")
	start := len(dst)
	dst = AppendInt(dst, int32(len(d.fraction)))
	dst, err = d.append(dst, len(d.fraction))
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// parseShort reads a decimal that has at most 18 digits at scale. It leaves all else,
// also what is no decimal, to splitDecimal.
func parseShort(text []byte, scale int) (v int64, ok bool) {
	if len(text) > shortDigits+2 || scale > shortDigits {
		return 0, false
	}
	digits, fraction, point := 0, 0, false
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9':
			v = v*10 + int64(c-'0')
			digits++
			if point {
				fraction++
			}
		case c == '.' && !point:
			point = true
		case c != '-' || i != 0:
			return 0, false
		}
	}
	missing := scale - fraction
	if digits == 0 || missing < 0 || digits+missing > shortDigits {
		return 0, false
	}
	for ; missing > 0; missing-- {
		v *= 10
	}
	if text[0] == '-' {
		v = -v
	}
	return v, true
}

// appendUnscaled appends v as length-prefixed two's complement in as few bytes as hold it.
func appendUnscaled(dst []byte, v int64) []byte {
	n := bits.Len64(uint64(v^v>>63))/8 + 1
	dst = append(dst, byte(n<<1))
	for shift := (n - 1) * 8; shift >= 0; shift -= 8 {
		dst = append(dst, byte(v>>shift))
	}
	return dst
}

// decimalText is a decimal's text in its parts, which are views.
type decimalText struct {
	negative bool
	whole    []byte // without leading zeros
	fraction []byte
}

func splitDecimal(text []byte) (decimalText, error) {
	var d decimalText
	rest := text
	if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') {
		d.negative = rest[0] == '-'
		rest = rest[1:]
	}
	d.whole = rest
	if i := bytes.IndexByte(rest, '.'); i >= 0 {
		d.whole, d.fraction = rest[:i], rest[i+1:]
	}
	if len(d.whole)+len(d.fraction) == 0 || !allDigits(d.whole) || !allDigits(d.fraction) {
		return d, decimalError(rest)
	}
	d.whole = bytes.TrimLeft(d.whole, "0")
	return d, nil
}

// decimalError never has the text: errors quote no values.
func decimalError(unsigned []byte) error {
	switch string(bytes.ToLower(unsigned)) {
	case "nan", "inf", "infinity":
		return fmt.Errorf("write decimal: %w", ErrUnrepresentable)
	}
	return errors.New("write decimal: not a decimal number")
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// append writes the unscaled value: the digits of both parts, and zeros up to scale.
// scale is at least the number of fraction digits.
func (d *decimalText) append(dst []byte, scale int) ([]byte, error) {
	if len(d.whole)+scale > maxDigits {
		return dst, fmt.Errorf("write decimal of %d digits: %w", len(d.whole)+scale, ErrUnrepresentable)
	}
	var room [16]uint64 // 308 digits without allocation
	limbs := addDigits(room[:0], d.whole)
	limbs = addDigits(limbs, d.fraction)
	for missing := scale - len(d.fraction); missing > 0; missing -= groupDigits {
		limbs = addDigits(limbs, zeros[:min(missing, groupDigits)])
	}
	return appendTwos(dst, limbs, d.negative), nil
}

const groupDigits = 19 // as many decimal digits always fit a uint64

var zeros = []byte("0000000000000000000")

// addDigits writes digits behind a natural number, whose limbs, from the lowest, without
// a zero on top, it changes.
func addDigits(limbs []uint64, digits []byte) []uint64 {
	for len(digits) > 0 {
		n := min(len(digits), groupDigits)
		group, value := uint64(1), uint64(0)
		for _, c := range digits[:n] {
			group, value = group*10, value*10+uint64(c-'0')
		}
		limbs, digits = multiplyAdd(limbs, group, value), digits[n:]
	}
	return limbs
}

// multiplyAdd makes limbs × factor + carry, in place while there is room.
func multiplyAdd(limbs []uint64, factor, carry uint64) []uint64 {
	for i, limb := range limbs {
		hi, lo := bits.Mul64(limb, factor)
		lo, c := bits.Add64(lo, carry, 0)
		limbs[i], carry = lo, hi+c
	}
	if carry > 0 {
		limbs = append(limbs, carry)
	}
	return limbs
}

// appendTwos appends the number with that magnitude and sign as length-prefixed two's
// complement. It changes limbs.
func appendTwos(dst []byte, limbs []uint64, negative bool) []byte {
	negative = negative && len(limbs) > 0
	var flip uint64
	if negative { // -m is the complement of m-1
		flip = ^uint64(0)
		limbs = decrement(limbs)
	}
	width := 0
	if k := len(limbs); k > 0 {
		width = (k-1)*64 + bits.Len64(limbs[k-1])
	}
	n := width/8 + 1
	dst = AppendLong(dst, int64(n))
	start := len(dst)
	for i := (n + 7) / 8; i > 0; i-- {
		var limb uint64
		if i <= len(limbs) {
			limb = limbs[i-1]
		}
		dst = binary.BigEndian.AppendUint64(dst, limb^flip)
	}
	copy(dst[start:], dst[len(dst)-n:]) // the highest limb may have bytes too many
	return dst[:start+n]
}

// decrement subtracts 1 from a magnitude that is not 0, in place.
func decrement(limbs []uint64) []uint64 {
	for i := range limbs {
		limbs[i]--
		if limbs[i] != ^uint64(0) {
			break
		}
	}
	if k := len(limbs); limbs[k-1] == 0 {
		return limbs[:k-1]
	}
	return limbs
}
