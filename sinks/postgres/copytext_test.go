package postgres

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestEscape(t *testing.T) {
	for _, text := range []string{"", `\N`, `\U`, "a\tb\nc\rd", `\\t`, "plain", `\`} {
		field, err := appendEscaped(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(field, "\t\n\r") || bytes.Equal(field, nullField) || bytes.Equal(field, unchangedField) {
			t.Errorf("%q is written as %q", text, field)
		}
		if back := unescape(field); string(back) != text || back == nil && text != "" {
			t.Errorf("%q comes back as %q", text, back)
		}
	}
	if unescape(nullField) != nil {
		t.Error("null comes back as a value")
	}
	if _, err := appendEscaped(nil, "a\x00"); err == nil {
		t.Error("a character 0 is taken")
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\tb", "c")
	f.Fuzz(func(t *testing.T, a, b string) {
		line, err := appendEscaped(nil, a)
		if err != nil {
			return
		}
		if line, err = appendEscaped(append(line, '\t'), b); err != nil {
			return
		}
		first, rest := nextField(line)
		second, rest := nextField(rest)
		if string(unescape(first)) != a || string(unescape(second)) != b || rest != nil {
			t.Fatalf("%q and %q come back from %q as %q and %q", a, b, line, unescape(first), unescape(second))
		}
	})
}

func FuzzQuote(f *testing.F) {
	f.Add(`a"b`)
	f.Fuzz(func(t *testing.T, name string) {
		q := quoteIdent(name)
		inner := strings.ReplaceAll(q[1:len(q)-1], `""`, "")
		if q[0] != '"' || q[len(q)-1] != '"' || strings.ContainsAny(inner, "\"\x00") {
			t.Fatalf("%q is quoted as %s", name, q)
		}
	})
}

func TestFold(t *testing.T) {
	var f fold
	put := func(key, line string, partial bool) {
		from := len(f.text)
		f.text = append(f.text, line+"\n"...)
		e, _ := f.entry([]byte(key))
		f.set(e, from, partial)
	}
	for round := range 3 {
		f.reset()
		for i := range 1000 {
			put(fmt.Sprint(i), fmt.Sprintf("%d\ta\tb", i), false)
		}
		put("7", "7\t\\U\tc", true)
		put("7", "7\td\t\\U", true)
		put("x", "x\t\\U\t\\U", true)
		put("x", "x\t\\U\tz", true)
		if len(f.entries) != 1001 {
			t.Fatalf("round %d: %d entries", round, len(f.entries))
		}
		for i, want := range map[int]string{7: "7\td\tc\n", 8: "8\ta\tb\n", 1000: "x\t\\U\tz\n"} {
			e := &f.entries[i]
			if got := string(f.text[e.line.from:e.line.to]); got != want || e.partial != (i == 1000) {
				t.Errorf("round %d: entry %d is %q, partial %v; want %q", round, i, got, e.partial, want)
			}
		}
	}
	key := []byte("7")
	if n := testing.AllocsPerRun(100, func() { f.entry(key) }); n != 0 {
		t.Errorf("a key that is there allocates %v", n)
	}
}
