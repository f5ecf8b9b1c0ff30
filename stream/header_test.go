package stream

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"
)

func TestMarkGolden(t *testing.T) {
	for _, c := range []struct {
		mark  Mark
		parts []EndPart
		want  string
	}{
		{Mark{Place: Place{Epoch: 1, Pos: 0x16B3748, Row: 1}, N: 300}, nil,
			"01" + "00" + "01" + "00" + "c8eeac0b" + "01" + "ac02"},
		{Mark{Flags: FlagBackfill | FlagRebased, Place: Place{Epoch: 2, File: 3, Pos: 4, Row: 128}, N: 1}, nil,
			"01" + "03" + "02" + "03" + "04" + "8001" + "01"},
		{Mark{Flags: FlagEnd, Place: Place{Epoch: 1, Pos: 127, Row: 3}, N: 9}, []EndPart{{"shop.a", 0, 2}, {"b", 130, 1}},
			"01" + "04" + "01" + "00" + "7f" + "03" + "09" + "02" + "0673686f702e61" + "00" + "02" + "0162" + "8201" + "01"},
		{Mark{Flags: FlagEnd, Place: Place{Epoch: 1, Pos: 5, Row: 1}, N: 1}, []EndPart{},
			"01" + "04" + "01" + "00" + "05" + "01" + "01" + "00"},
	} {
		b := AppendMark([]byte("kept"), c.mark)
		if c.parts != nil {
			b = AppendEndParts(b, c.parts)
		}
		if got := hex.EncodeToString(b[4:]); got != c.want || string(b[:4]) != "kept" {
			t.Errorf("%+v\n got %s\nwant %s", c.mark, got, c.want)
		}
		m, rest, err := ParseMark(b[4:])
		if err != nil || m != c.mark {
			t.Errorf("%s parses as %+v, %v", c.want, m, err)
		}
		if c.parts == nil {
			if len(rest) != 0 {
				t.Errorf("%s leaves %x", c.want, rest)
			}
			continue
		}
		parts, err := ParseEndParts(rest)
		if err != nil || !slices.Equal(parts, c.parts) {
			t.Errorf("%s: parts %+v, %v", c.want, parts, err)
		}
	}
}

func TestMarkOfMaximalSize(t *testing.T) {
	m := Mark{Flags: flagsKnown, Place: Place{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64}, N: math.MaxUint64}
	b := AppendMark(nil, m)
	if len(b) != MaxMarkSize {
		t.Errorf("%d bytes, not %d", len(b), MaxMarkSize)
	}
	if got, _, err := ParseMark(b); err != nil || got != m {
		t.Errorf("parses as %+v, %v", got, err)
	}
}

func TestParseMarkRefuses(t *testing.T) {
	good := AppendMark(nil, Mark{Place: Place{1, 2, 300, 4}, N: 500})
	for n := range len(good) {
		if _, _, err := ParseMark(good[:n]); !errors.Is(err, errMark) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for name, in := range map[string]string{
		"version 0":                  "00000102030405",
		"version 2":                  "02000102030405",
		"unknown flag":               "01080102030405",
		"a byte after the mark":      "0100010203040500",
		"a number longer than it is": "0100010281000405",
		"a number of 65 bits":        "010001" + "ffffffffffffffffff02" + "030405",
		"a number of 11 bytes":       "010001" + "ffffffffffffffffffff01" + "030405",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if m, rest, err := ParseMark(b); !errors.Is(err, errMark) || m != (Mark{}) || rest != nil {
			t.Errorf("%s: %+v, %x, %v", name, m, rest, err)
		}
	}
}

func TestParseEndPartsRefuses(t *testing.T) {
	good := AppendEndParts(nil, []EndPart{{"topic", 1, 2}, {"other", 3, 400}})
	for n := range len(good) {
		if _, err := ParseEndParts(good[:n]); !errors.Is(err, errMark) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for name, in := range map[string]string{
		"bytes after the parts":  "0000",
		"more parts than bytes":  "ffffffff0f" + "01610001",
		"topic of no bytes":      "01" + "00" + "00" + "8001",
		"topic beyond the end":   "01" + "7f61" + "0001",
		"partition over 31 bits": "01" + "0161" + "8080808008" + "01",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if parts, err := ParseEndParts(b); !errors.Is(err, errMark) || parts != nil {
			t.Errorf("%s: %+v, %v", name, parts, err)
		}
	}
}

func TestPlaceCompare(t *testing.T) {
	ordered := []Place{{}, {0, 0, 0, 9}, {0, 0, 1, 2}, {0, 1, 0, 1}, {0, 1, 7, 0}, {1, 0, 0, 0}, {1, 0, math.MaxUint64, 0}, {2, 0, 5, 5}}
	for i, p := range ordered {
		for j, q := range ordered {
			if got := p.Compare(q); got != cmp.Compare(i, j) {
				t.Errorf("%+v against %+v: %d", p, q, got)
			}
		}
	}
}

// decodeOne writes a record with these headers and reads it back.
func decodeOne(t testing.TB, headers []RecordHeader) *Decoder {
	t.Helper()
	var b Batch
	if err := errors.Join(b.Append(1, nil, nil, headers), b.Seal(None, false)); err != nil {
		t.Fatal(err)
	}
	d := new(Decoder)
	d.Reset(b.Stamp(1, 1, 1))
	if !d.NextBatch() || !d.NextRecord() {
		t.Fatal(d.Err())
	}
	return d
}

func TestRecordMark(t *testing.T) {
	want := Mark{Flags: FlagEnd, Place: Place{1, 0, 99, 3}, N: 7}
	value := AppendEndParts(AppendMark(nil, want), []EndPart{{"t", 1, 2}})
	mark, other := RecordHeader{MarkKey, value}, RecordHeader{"__debezium.newkey", []byte("{}")}
	d := decodeOne(t, []RecordHeader{other, mark, other})
	m, rest, found, err := d.Record().Mark()
	if !found || err != nil || m != want {
		t.Fatalf("mark %+v, %v, %v", m, found, err)
	}
	if parts, err := ParseEndParts(rest); err != nil || len(parts) != 1 || parts[0] != (EndPart{"t", 1, 2}) {
		t.Errorf("parts %+v, %v", parts, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _, err = d.Record().Mark() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, _, found, err := decodeOne(t, []RecordHeader{other}).Record().Mark(); found || err != nil {
		t.Errorf("no mark: found %v, %v", found, err)
	}
	if _, _, found, err := decodeOne(t, []RecordHeader{mark, other, mark}).Record().Mark(); !found || !errors.Is(err, errMark) {
		t.Errorf("two marks: found %v, %v", found, err)
	}
	if _, _, found, err := decodeOne(t, []RecordHeader{{MarkKey, nil}}).Record().Mark(); !found || !errors.Is(err, errMark) {
		t.Errorf("null mark: found %v, %v", found, err)
	}
}

func FuzzMark(f *testing.F) {
	f.Add(AppendMark(nil, Mark{Place: Place{1, 0, 0x16B3748, 1}, N: 300}))
	f.Add(AppendMark(nil, Mark{Flags: FlagBackfill, Place: Place{2, 7, 4, 128}, N: math.MaxUint64}))
	f.Add(AppendEndParts(AppendMark(nil, Mark{Flags: FlagEnd, Place: Place{1, 0, 5, 3}, N: 9}), []EndPart{{"shop.a", 0, 2}, {"b", 130, 1}}))
	f.Add([]byte{1, FlagEnd, 1, 0, 0, 0, 0, 0xff, 0xff, 0x03})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, rest, err := ParseMark(b)
		if err != nil {
			return
		}
		again := AppendMark(nil, m)
		if m.Flags&FlagEnd != 0 {
			parts, err := ParseEndParts(rest)
			if err != nil {
				return
			}
			again = AppendEndParts(again, parts)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x is written again as %x", b, again)
		}
	})
}

func BenchmarkMark(b *testing.B) {
	m := Mark{Place: Place{Epoch: 1, Pos: 0x1_0000_0000, Row: 1}, N: 12345}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendMark(buf[:0], m)
		if got, _, err := ParseMark(buf); err != nil || got != m {
			b.Fatal(err)
		}
	}
}
