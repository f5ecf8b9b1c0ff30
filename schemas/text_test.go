package schemas

import (
	"math"
	"testing"
	"time"
)

func TestDecimalText(t *testing.T) {
	for _, c := range []struct {
		raw   []byte
		scale int
		want  string
	}{
		{[]byte{0}, 0, "0"}, {[]byte{0}, 2, "0.00"}, {[]byte{0xff}, 3, "-0.001"}, {[]byte{0x7f}, 1, "12.7"}, {[]byte{0x80}, 0, "-128"}, {nil, 1, "0.0"},
		{[]byte{0x80, 0, 0, 0, 0, 0, 0, 0}, 0, "-9223372036854775808"}, {[]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0}, 2, "-23611832414348226068.48"}, {[]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, 0, "18446744073709551616"},
	} {
		if got := string(AppendDecimalText(nil, c.raw, c.scale)); got != c.want {
			t.Errorf("% x with scale %d is %s, want %s", c.raw, c.scale, got, c.want)
		}
	}
}

func TestTimesAsText(t *testing.T) {
	millis, micros := &Type{Precision: 3}, &Type{Precision: 6}
	for _, c := range []struct{ got, want string }{
		{string(AppendDateText(nil, 0)), "1970-01-01"},
		{string(AppendDateText(nil, 19_849)), "2024-05-06"},
		{string(AppendDateText(nil, -719_528)), "0000-01-01"},
		{string(AppendDateText(nil, -735_202)), "-0043-02-01"},
		{string(AppendDateText(nil, 2_932_897)), "+10000-01-01"},
		{string(AppendTimeText(nil, 25_689_123, millis)), "07:08:09.123"},
		{string(AppendTimeText(nil, 25_689_123_456, micros)), "07:08:09.123456"},
		{string(AppendTimeText(nil, 86_400_000_000, micros)), "24:00:00.000000"},
		{string(AppendTimestampText(nil, 1_714_979_289_123, millis)), "2024-05-06T07:08:09.123"},
		{string(AppendTimestampText(nil, -1, micros)), "1969-12-31T23:59:59.999999"},
		{string(AppendTimestampText(nil, TimestampInfinity, micros)), "infinity"},
		{string(AppendTimestampText(nil, TimestampNegativeInfinity/1000, millis)), "-infinity"},
		{string(AppendInstantText(nil, 1_714_979_289_123_456)), "2024-05-06T07:08:09.123456Z"},
		{string(AppendIntervalText(nil, 3_500_000)), "PT3.500000S"},
		{string(AppendIntervalText(nil, -60_000_000)), "-PT60S"},
		{string(AppendIntervalText(nil, math.MinInt64)), "-PT9223372036854.775808S"},
		{string(AppendIntervalText(nil, 0)), "PT0S"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// Within four digits of a year the standard library writes the same.
func FuzzTimestampText(f *testing.F) {
	for _, v := range []int64{0, -1, 1_714_979_289_123_456, -62_135_596_800_000_000, 253_402_300_799_999_999} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v int64) {
		at := time.UnixMicro(v).UTC()
		if at.Year() < 0 || at.Year() > 9999 || v == TimestampInfinity || v == TimestampNegativeInfinity {
			return
		}
		if got, want := string(AppendTimestampText(nil, v, &Type{Precision: 6})), at.Format("2006-01-02T15:04:05.000000"); got != want {
			t.Errorf("%d: got %s, want %s", v, got, want)
		}
	})
}
