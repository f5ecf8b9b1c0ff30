package schemas

import (
	"bytes"
	"math"
	"testing"

	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"
)

// encoded returns what goavro makes of a value.
func encoded(t interface{ Fatal(...any) }, schema string, value any) []byte {
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	b, err := codec.BinaryFromNative(nil, value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppendAsGoavro(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, f := rapid.Int64().Draw(t, "n"), rapid.Float64().Draw(t, "f")
		s, b := rapid.String().Draw(t, "s"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		items := rapid.SliceOf(rapid.Int32()).Draw(t, "items")
		dst, native := AppendArrayStart(nil, len(items)), make([]any, len(items))
		for i, v := range items {
			dst, native[i] = AppendInt(dst, v), v
		}
		for _, c := range []struct {
			schema string
			value  any
			got    []byte
		}{
			{`"long"`, n, AppendLong(nil, n)},
			{`"int"`, int32(n), AppendInt(nil, int32(n))},
			{`"double"`, f, AppendDouble(nil, f)},
			{`"float"`, float32(f), AppendFloat(nil, float32(f))},
			{`"boolean"`, n > 0, AppendBool(nil, n > 0)},
			{`"bytes"`, b, AppendBytes(nil, b)},
			{`"string"`, s, AppendString(nil, s)},
			{`"string"`, s, AppendString(nil, []byte(s))},
			{`["null","long"]`, goavro.Union("long", n), AppendLong(AppendUnion(nil, 1), n)},
			{`["null","long"]`, nil, AppendUnion(nil, 0)},
			{`{"type":"array","items":"int"}`, native, AppendArrayEnd(dst)},
		} {
			if want := encoded(t, c.schema, c.value); !bytes.Equal(c.got, want) {
				t.Fatalf("%s %v: %x, want %x", c.schema, c.value, c.got, want)
			}
		}
	})
}

func TestAppendFrame(t *testing.T) {
	got := AppendFrame([]byte{9}, 0x01020304)
	if want := []byte{9, 0, 1, 2, 3, 4}; !bytes.Equal(got, want) || len(got) != 1+FrameSize {
		t.Errorf("%x, want %x", got, want)
	}
	if got := AppendFrame(nil, math.MaxInt32); !bytes.Equal(got, []byte{0, 0x7f, 0xff, 0xff, 0xff}) {
		t.Errorf("%x", got)
	}
}

// rowTypes are the columns of appendRow that need their type.
var rowTypes = struct{ t3, t6, none Type }{Type{Precision: 3}, Type{Precision: 6}, Type{Precision: -1}}

// appendRow writes each type once, as a column encoder would.
func appendRow(dst, text, short, long []byte) ([]byte, error) {
	dst = AppendFrame(dst, 7)
	dst = AppendLong(AppendUnion(dst, 1), math.MinInt64)
	dst = AppendInt(AppendBool(dst, true), 3)
	dst = AppendDouble(AppendFloat(dst, 1), 2)
	dst = AppendString(AppendBytes(dst, text), text)
	dst = AppendDate(dst, 19000)
	dst = AppendTime(AppendTime(dst, 1, &rowTypes.t3), 1, &rowTypes.t6)
	dst = AppendTimestamp(AppendTimestamp(dst, 1, &rowTypes.t3), 1, &rowTypes.t6)
	dst = AppendZonedTimestamp(dst, 1_700_000_000_123_456, &rowTypes.none)
	dst = AppendZonedTime(dst, 43_200_500_000, &rowTypes.none)
	dst = AppendArrayEnd(AppendInt(AppendArrayStart(dst, 1), 1))
	dst, err := AppendInterval(dst, 1, 2, 3)
	if err != nil {
		return dst, err
	}
	if dst, err = AppendDecimal(dst, short, 2); err != nil {
		return dst, err
	}
	if dst, err = AppendDecimal(dst, long, 10); err != nil {
		return dst, err
	}
	return AppendVarDecimal(dst, long)
}

func TestAppendAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 1024)
	text, short, long := []byte("text"), []byte("-12345.67"), []byte("123456789012345678901234567890.5000")
	var err error
	allocs := testing.AllocsPerRun(100, func() { _, err = appendRow(dst[:0], text, short, long) })
	if err != nil || allocs != 0 {
		t.Errorf("%v allocations, error %v", allocs, err)
	}
}

func BenchmarkAppendRow(b *testing.B) {
	dst := make([]byte, 0, 1024)
	text, short, long := []byte("text"), []byte("-12345.67"), []byte("123456789012345678901234567890.5000")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := appendRow(dst[:0], text, short, long); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendZonedTimestamp(b *testing.B) {
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		AppendZonedTimestamp(dst[:0], 1_700_000_000_123_456, &rowTypes.none)
	}
}
