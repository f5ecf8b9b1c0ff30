package stream

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestVarint(t *testing.T) {
	for _, v := range []int64{0, -1, 1, 63, -64, 64, -65, 8191, 8192, -8193, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64, 1 << 62} {
		want := binary.AppendVarint(nil, v)
		got := make([]byte, varintSize(v))
		if n := putVarint(got, 0, v); n != len(got) || !bytes.Equal(got, want) {
			t.Errorf("%d is written as %x, want %x", v, got, want)
		}
		if back, at := getVarint(append([]byte{9}, got...), 1); back != v || at != len(got)+1 {
			t.Errorf("%x reads as %d up to %d", got, back, at)
		}
		for cut := range got {
			if back, at := getVarint(got[:cut], 0); back != 0 || at != -1 {
				t.Errorf("%x reads as %d up to %d", got[:cut], back, at)
			}
		}
	}
	for _, in := range [][]byte{bytes.Repeat([]byte{0xff}, 11), append(bytes.Repeat([]byte{0xff}, 9), 2), append(bytes.Repeat([]byte{0x80}, 10), 1)} {
		if v, at := getVarint(in, 0); v != 0 || at != -1 {
			t.Errorf("%x reads as %d up to %d", in, v, at)
		}
	}
	if _, at := getVarint([]byte{1, 1}, -1); at != -1 {
		t.Error("a failure is not passed on")
	}
}
