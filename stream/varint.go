package stream

import "math/bits"

// Numbers inside records are zigzag varints: seven bits to a byte, the lowest
// first, the high bit set on all bytes but the last (Kafka's ByteUtils).

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// varintSize returns how many bytes putVarint writes: 1 to 10.
func varintSize(v int64) int64 {
	return int64(bits.Len64(zigzag(v)|1)+6) / 7
}

// putVarint writes v into p at position at and returns the position after it.
// p has room: the caller has counted with varintSize.
func putVarint(p []byte, at int, v int64) int {
	u := zigzag(v)
	for u >= 0x80 {
		p[at] = byte(u) | 0x80
		u >>= 7
		at++
	}
	p[at] = byte(u)
	return at + 1
}

// getVarint reads a varint of b at position at and returns the position after
// it, or -1 if b ends inside it or it does not fit 64 bits. An at of -1 is
// passed through, so that several reads need one check.
func getVarint(b []byte, at int) (int64, int) {
	if at >= 0 && at < len(b) && b[at] < 0x80 {
		u := uint64(b[at])
		return int64(u>>1) ^ -int64(u&1), at + 1
	}
	return getLongVarint(b, at)
}

func getLongVarint(b []byte, at int) (int64, int) {
	if at < 0 {
		return 0, -1
	}
	var u uint64
	for shift := 0; at < len(b) && shift < 64; shift += 7 {
		c := b[at]
		at++
		if shift == 63 && c > 1 {
			return 0, -1
		}
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), at
		}
	}
	return 0, -1
}

// viewBytes reads a varint length and as many bytes of b at position at: nil
// for length -1 (null), else a view whose capacity is its length. It returns
// the position after them, or -1 if the length is below -1 or b is too short.
func viewBytes(b []byte, at int) ([]byte, int) {
	n, at := getVarint(b, at)
	if n == -1 {
		return nil, at
	}
	if at < 0 || n < 0 || n > int64(len(b)-at) {
		return nil, -1
	}
	end := at + int(n)
	return b[at:end:end], end
}
