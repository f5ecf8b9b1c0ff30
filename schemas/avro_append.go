package schemas

import (
	"encoding/binary"
	"math"
)

// The functions here append Avro's binary encoding (specification 1.12, "Binary
// Encoding") to dst and return the extended slice. They keep no reference to their
// arguments and allocate only when dst must grow.

// FrameSize is the length of what AppendFrame writes.
const FrameSize = 5

// AppendFrame appends the header that Confluent's registry puts before a value:
//
//	00 | schema id, 4 bytes big-endian
func AppendFrame(dst []byte, id int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(id))
}

// AppendLong appends a long: zigzag, then 7 bits a byte from the lowest.
func AppendLong(dst []byte, v int64) []byte {
	u := uint64(v<<1) ^ uint64(v>>63)
	for u >= 0x80 {
		dst = append(dst, byte(u)|0x80)
		u >>= 7
	}
	return append(dst, byte(u))
}

// AppendInt appends an int, which is encoded as a long is.
func AppendInt(dst []byte, v int32) []byte { return AppendLong(dst, int64(v)) }

// AppendBool appends a boolean.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendFloat appends a float: IEEE 754, 4 bytes little-endian.
func AppendFloat(dst []byte, v float32) []byte {
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
}

// AppendDouble appends a double: IEEE 754, 8 bytes little-endian.
func AppendDouble(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

// AppendBytes appends bytes: their number as a long, then they themselves.
func AppendBytes(dst, v []byte) []byte {
	return append(AppendLong(dst, int64(len(v))), v...)
}

// AppendString appends a string, which must be UTF-8: its length in bytes as a long,
// then its bytes.
func AppendString[T ~string | ~[]byte](dst []byte, v T) []byte {
	return append(AppendLong(dst, int64(len(v))), v...)
}

// AppendUnion appends the index of a union's branch; the branch's value follows. A null
// has no bytes of its own.
func AppendUnion(dst []byte, branch int64) []byte { return AppendLong(dst, branch) }

// AppendArrayStart appends the head of an array of n items, which follow it; after them
// AppendArrayEnd must be called, also if n is 0.
func AppendArrayStart(dst []byte, n int) []byte {
	if n == 0 {
		return dst
	}
	return AppendLong(dst, int64(n))
}

// AppendArrayEnd appends the end of an array.
func AppendArrayEnd(dst []byte) []byte { return append(dst, 0) }
