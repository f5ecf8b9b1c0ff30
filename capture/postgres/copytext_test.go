package postgres

import (
	"bytes"
	"strings"
	"testing"
)

// copyText writes a row as COPY TO does; nil is NULL. Source: CopyAttributeOutText.
func copyText(values [][]byte) []byte {
	escapes := strings.NewReplacer("\\", `\\`, "\b", `\b`, "\f", `\f`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\v", `\v`)
	var b []byte
	for i, v := range values {
		if i > 0 {
			b = append(b, '\t')
		}
		if v == nil {
			b = append(b, `\N`...)
			continue
		}
		b = append(b, escapes.Replace(string(v))...)
	}
	return append(b, '\n')
}

// What COPY would write of any values comes back as these values.
func FuzzCopyText(f *testing.F) {
	f.Add([]byte("a"), []byte(""), []byte("\\N"), true)
	f.Add([]byte("\t\n\r\b\f\v\\"), []byte("\\."), []byte("€\x80"), false)
	f.Fuzz(func(t *testing.T, a, b, c []byte, null bool) {
		values := [][]byte{append([]byte{}, a...), append([]byte{}, b...), append([]byte{}, c...)}
		if null {
			values[1] = nil
		}
		text := append(copyText(values), "next"...)
		row, rest, ok := cutRow(text)
		if !ok || string(rest) != "next" {
			t.Fatalf("cut %q into %q and %q", text, row, rest)
		}
		fields := make([]field, len(values))
		if err := splitCopy(row, fields); err != nil {
			t.Fatalf("split %q: %v", row, err)
		}
		for i, f := range fields {
			if values[i] == nil != (f.start == fieldNull) || f.start >= 0 && !bytes.Equal(row[f.start:f.end], values[i]) {
				t.Errorf("value %d of %q is %+v, want %q", i, text, f, values[i])
			}
		}
	})
}

// Any bytes are split or refused, within their bounds.
func FuzzCopyTextBroken(f *testing.F) {
	f.Add([]byte("a\tb"), 2)
	f.Add([]byte("\\"), 1)
	f.Add([]byte("\\x41\t\\N"), 2)
	f.Fuzz(func(t *testing.T, row []byte, n int) {
		fields := make([]field, max(0, min(n, 100)))
		if splitCopy(row, fields) != nil {
			return
		}
		for _, f := range fields {
			if f.start != fieldNull && (f.start < 0 || f.end < f.start || int(f.end) > len(row)) {
				t.Fatalf("field %+v of %d bytes", f, len(row))
			}
		}
	})
}

func TestCopyTextRefused(t *testing.T) {
	for text, columns := range map[string]int{"a": 2, "a\tb\tc": 2, `\`: 1, `\x41`: 1, `\101`: 1, `a\N`: 1, "x": 0, "\t": 1} {
		if err := splitCopy([]byte(text), make([]field, columns)); err == nil {
			t.Errorf("%q is taken as %d columns", text, columns)
		}
	}
	if err := splitCopy(nil, nil); err != nil {
		t.Errorf("a row without columns: %v", err)
	}
}
