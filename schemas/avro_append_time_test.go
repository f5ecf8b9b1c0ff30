package schemas

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// text reads back an appended string.
func text(t *testing.T, b []byte) string {
	t.Helper()
	s, err := CompileSchema(`"string"`)
	must(t, err)
	tape, err := s.Decode(nil, b)
	must(t, err)
	return string(tape[0].Bytes)
}

func TestAppendTimes(t *testing.T) {
	const micros = 1_234_567 // 1.234567 s
	for p, want := range map[int]int64{-1: micros, 0: 1234, 1: 1234, 3: 1234, 4: micros, 6: micros, 9: micros} {
		typ := &Type{Precision: p}
		if got := AppendTime(nil, micros, typ); !bytes.Equal(got, AppendLong(nil, want)) {
			t.Errorf("time(%d): %x, want %d", p, got, want)
		}
		if got := AppendTimestamp(nil, micros, typ); !bytes.Equal(got, AppendLong(nil, want)) {
			t.Errorf("timestamp(%d): %x, want %d", p, got, want)
		}
	}
	before := &Type{Precision: 3}
	if got := AppendTimestamp(nil, -1, before); !bytes.Equal(got, AppendLong(nil, -1)) { // not 0
		t.Errorf("a microsecond before 1970: %x", got)
	}
	if got := AppendTimestamp(nil, TimestampInfinity, before); !bytes.Equal(got, AppendLong(nil, 9223372036825200)) {
		t.Errorf("infinity in milliseconds: %x", got)
	}
	if got := AppendDate(nil, -719_893); !bytes.Equal(got, AppendLong(nil, -719_893)) {
		t.Errorf("date: %x", got)
	}
}

func TestAppendZonedTimestamp(t *testing.T) {
	at := func(year, month, day, hour, minute, second, micro int) int64 {
		return time.Date(year, time.Month(month), day, hour, minute, second, micro*1000, time.UTC).UnixMicro()
	}
	for _, c := range []struct {
		micros    int64
		precision int
		want      string
	}{
		{0, 0, "1970-01-01T00:00:00Z"},
		{0, 6, "1970-01-01T00:00:00.000000Z"},
		{0, -1, "1970-01-01T00:00:00.000000Z"},
		{at(2024, 2, 29, 23, 59, 59, 123456), -1, "2024-02-29T23:59:59.123456Z"},
		{at(2024, 2, 29, 23, 59, 59, 120000), 2, "2024-02-29T23:59:59.12Z"},
		{at(2024, 2, 29, 23, 59, 59, 100000), 3, "2024-02-29T23:59:59.100Z"},
		{at(1969, 12, 31, 23, 59, 59, 999999), 6, "1969-12-31T23:59:59.999999Z"},
		{at(9999, 12, 31, 0, 0, 0, 0), 0, "9999-12-31T00:00:00Z"},
		{at(10000, 1, 1, 0, 0, 0, 0), 0, "+10000-01-01T00:00:00Z"},
		{at(294246, 12, 31, 23, 59, 59, 999999), -1, "+294246-12-31T23:59:59.999999Z"}, // what 64 bits can hold
		{TimestampInfinity, 1, "+294247-01-10T04:00:25.2Z"},
		{TimestampNegativeInfinity, 1, "-290308-12-21T19:59:27.6Z"},
		{at(1, 1, 1, 0, 0, 0, 0), 0, "0001-01-01T00:00:00Z"},
		{at(0, 12, 31, 0, 0, 0, 0), 0, "0000-12-31T00:00:00Z"},      // 1 BC
		{at(-43, 3, 15, 12, 0, 0, 0), 0, "-0043-03-15T12:00:00Z"},   // 44 BC
		{at(-4713, 11, 24, 0, 0, 0, 0), 0, "-4713-11-24T00:00:00Z"}, // PostgreSQL's first, 4714 BC
		{at(-12000, 1, 1, 0, 0, 0, 0), 0, "-12000-01-01T00:00:00Z"},
	} {
		got := text(t, AppendZonedTimestamp(nil, c.micros, &Type{Precision: c.precision}))
		if got != c.want {
			t.Errorf("timestamptz(%d) %d: %s, want %s", c.precision, c.micros, got, c.want)
		}
	}
}

func TestAppendZonedTimestampAsTime(t *testing.T) {
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMicro()
	rapid.Check(t, func(rt *rapid.T) {
		micros := rapid.Int64Range(first, last).Draw(rt, "micros")
		p := rapid.IntRange(0, 6).Draw(rt, "p")
		layout := "2006-01-02T15:04:05Z"
		if p > 0 {
			layout = "2006-01-02T15:04:05." + strings.Repeat("0", p) + "Z"
		}
		want := time.UnixMicro(micros).UTC().Format(layout)
		if got := text(t, AppendZonedTimestamp(nil, micros, &Type{Precision: p})); got != want {
			rt.Fatalf("%d: %s, want %s", micros, got, want)
		}
	})
	// Each day of 800 years around the era's ends, and what int64 can hold at all.
	for days := int64(-800_000); days < -500_000; days++ {
		y, m, d := civil(days)
		if at := time.Unix(days*86400, 0).UTC(); int64(at.Year()) != y || int(at.Month()) != m || at.Day() != d {
			t.Fatalf("day %d: %d-%d-%d, want %s", days, y, m, d, at)
		}
	}
	for _, micros := range []int64{math.MinInt64, math.MaxInt64} {
		at := time.UnixMicro(micros).UTC()
		want := fmt.Sprintf("%+d-%s", at.Year(), at.Format("01-02T15:04:05.000000Z"))
		if got := text(t, AppendZonedTimestamp(nil, micros, &Type{Precision: 6})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestAppendZonedTime(t *testing.T) {
	const hour = 3_600_000_000
	for micros, want := range map[int64]string{
		0:              "00:00:00Z",
		10*hour + 1:    "10:00:00.000001Z",
		500_000:        "00:00:00.5Z",
		24*hour - 1:    "23:59:59.999999Z",
		24 * hour:      "24:00:00Z",
		25 * hour:      "01:00:00Z",
		-1 * hour:      "23:00:00Z",
		12*hour + 3120: "12:00:00.00312Z",
	} {
		if got := text(t, AppendZonedTime(nil, micros, &Type{Precision: 6})); got != want {
			t.Errorf("%d: %s, want %s", micros, got, want)
		}
	}
}

func TestIntervalMicros(t *testing.T) {
	for _, c := range []struct {
		months, days int32
		micros, want int64
	}{
		{0, 0, 0, 0},
		{1, 0, 0, 2_629_800_000_000},
		{12, 0, 0, 31_557_600_000_000}, // 365.25 days
		{0, -1, 1, -86_399_999_999},
		{14, 3, 14_706_780_000, 37_091_106_780_000}, // P1Y2M3DT4H5M6.78S
		{-1, 30, 0, -37_800_000_000},
		{0, 0, math.MinInt64, math.MinInt64},
	} {
		if got, err := IntervalMicros(c.months, c.days, c.micros); err != nil || got != c.want {
			t.Errorf("%d months %d days %d: %d, %v, want %d", c.months, c.days, c.micros, got, err, c.want)
		}
	}
	for _, c := range [][3]int64{{math.MaxInt32, 0, 0}, {math.MinInt32, 0, 0}, {0, math.MaxInt32, 0}, {0, 1, math.MaxInt64}, {-1, 0, math.MinInt64}} {
		if got, err := AppendInterval([]byte("kept"), int32(c[0]), int32(c[1]), c[2]); !errors.Is(err, ErrUnrepresentable) || string(got) != "kept" {
			t.Errorf("%v: %q, %v", c, got, err)
		}
	}
}
