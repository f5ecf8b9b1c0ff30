package schemas

import (
	"bytes"
	"errors"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// javaBytes is BigInteger.toByteArray: two's complement, big-endian, as short as it goes.
func javaBytes(v *big.Int) []byte {
	n := v.BitLen()/8 + 1
	if v.Sign() < 0 {
		n = new(big.Int).Not(v).BitLen()/8 + 1
		v = new(big.Int).Add(v, new(big.Int).Lsh(big.NewInt(1), uint(n)*8))
	}
	return v.FillBytes(make([]byte, n))
}

// unscaled returns a decimal's value times 10 to the scale, if that is whole.
func unscaled(text string, scale int) (*big.Int, bool) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, false
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	return r.Num(), r.IsInt()
}

func TestAppendDecimal(t *testing.T) {
	for _, c := range []struct {
		text  string
		scale int
		want  string // hex is clearer as bytes
	}{
		{"0", 0, "\x00"},
		{"-0", 2, "\x00"},
		{"0.00", 2, "\x00"},
		{"1.50", 2, "\x00\x96"},
		{"1.5", 2, "\x00\x96"},
		{"+1.500", 2, "\x00\x96"},
		{"-1", 0, "\xff"},
		{"127", 0, "\x7f"},
		{"128", 0, "\x00\x80"},
		{"-128", 0, "\x80"},
		{"-129", 0, "\xff\x7f"},
		{"255", 0, "\x00\xff"},
		{"256", 0, "\x01\x00"},
		{".5", 1, "\x05"},
		{"5.", 1, "\x32"},
		{"0001", 0, "\x01"},
		{"500", -2, "\x01\xf4"}, // a negative scale is 0
		{"9223372036854775807", 0, "\x7f\xff\xff\xff\xff\xff\xff\xff"},
		{"-9223372036854775808", 0, "\x80\x00\x00\x00\x00\x00\x00\x00"},
		{"9223372036854775808", 0, "\x00\x80\x00\x00\x00\x00\x00\x00\x00"},
		{"18446744073709551616", 0, "\x01\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"-18446744073709551616", 0, "\xff\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"00000000000000000000000000000000000000000.1", 1, "\x01"},
	} {
		got, err := AppendDecimal([]byte("x"), []byte(c.text), c.scale)
		if want := append([]byte{'x', byte(len(c.want) << 1)}, c.want...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s at %d: %x, %v, want %x", c.text, c.scale, got, err, want)
		}
	}
}

func TestAppendDecimalRefuses(t *testing.T) {
	for text, unrepresentable := range map[string]bool{
		"NaN": true, "Infinity": true, "-Infinity": true, "-inf": true, strings.Repeat("9", 1<<18): true,
		"": false, "-": false, ".": false, "1.2.3": false, "1e5": false, "0x1": false, " 1": false, "1 ": false,
		"--1": false, "1-": false, "1.234": false, "١": false, "1_000": false,
	} {
		dst := []byte("kept")
		got, err := AppendDecimal(dst, []byte(text), 2)
		if err == nil || errors.Is(err, ErrUnrepresentable) != unrepresentable || string(got) != "kept" {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
		if text == "1.234" {
			continue
		}
		got, err = AppendVarDecimal(dst, []byte(text))
		if len(text) > 100 { // fits there, without the two zeros
			if err != nil {
				t.Error(err)
			}
		} else if err == nil || errors.Is(err, ErrUnrepresentable) != unrepresentable || string(got) != "kept" {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
	}
	if got, err := AppendVarDecimal([]byte("kept"), []byte("0."+strings.Repeat("1", 1<<18+1))); !errors.Is(err, ErrUnrepresentable) || string(got) != "kept" {
		t.Errorf("%.20q, %v", got, err)
	}
}

func TestAppendVarDecimal(t *testing.T) {
	for text, want := range map[string]string{
		"0":       "\x00\x02\x00",
		"0.000":   "\x00\x02\x00",
		"-0.0":    "\x00\x02\x00",
		"1.500":   "\x02\x02\x0f",
		"100":     "\x00\x02\x64", // not 1 at scale -2
		"-100.00": "\x00\x02\x9c",
		"0.00128": "\x0a\x04\x00\x80",
	} {
		got, err := AppendVarDecimal(nil, []byte(text))
		if err != nil || string(got) != want {
			t.Errorf("%s: %x, %v, want %x", text, got, err, want)
		}
	}
}

// checkDecimal compares AppendDecimal and AppendVarDecimal with math/big.
func checkDecimal(t interface{ Fatalf(string, ...any) }, text string, scale int) {
	got, err := AppendDecimal(nil, []byte(text), scale)
	v, whole := unscaled(text, scale)
	if err != nil || !whole {
		if whole || err == nil {
			t.Fatalf("%s at %d: %x, %v, whole %v", text, scale, got, err, whole)
		}
		return
	}
	if want := AppendBytes(nil, javaBytes(v)); !bytes.Equal(got, want) {
		t.Fatalf("%s at %d: %x, want %x", text, scale, got, want)
	}
	_, fraction, _ := strings.Cut(text, ".")
	own := len(strings.TrimRight(fraction, "0"))
	got, err = AppendVarDecimal(nil, []byte(text))
	v, _ = unscaled(text, own)
	if want := AppendBytes(AppendInt(nil, int32(own)), javaBytes(v)); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: %x, %v, want %x", text, got, err, want)
	}
}

func TestAppendDecimalAsBig(t *testing.T) {
	number := rapid.StringMatching(`-?[0-9]{1,400}(\.[0-9]{0,60}0{0,5})?|-?[0-9]{0,14}\.[0-9]{1,5}`)
	rapid.Check(t, func(t *rapid.T) {
		checkDecimal(t, number.Draw(t, "text"), rapid.IntRange(0, 70).Draw(t, "scale"))
	})
	for shift := range uint(200) { // around each power of two
		for d := int64(-1); d <= 1; d++ {
			v := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), shift), big.NewInt(d))
			checkDecimal(t, v.String(), 0)
			checkDecimal(t, v.Neg(v).String(), 0)
		}
	}
}

func FuzzAppendDecimal(f *testing.F) {
	f.Add("123.45", 2)
	f.Add("-0.00000000000000000001", 20)
	f.Add("340282366920938463463374607431768211456", 0)
	f.Add("NaN", 0)
	f.Fuzz(func(t *testing.T, text string, scale int) {
		if scale < 0 || scale > 200 || len(text) > 2000 {
			return
		}
		for _, c := range text { // big.Rat reads more than decimals
			if !strings.ContainsRune("0123456789.-+", c) {
				if _, err := AppendDecimal(nil, []byte(text), scale); err == nil {
					t.Fatalf("%q is taken", text)
				}
				return
			}
		}
		if _, ok := unscaled(text, scale); ok {
			checkDecimal(t, text, scale)
		} else if _, err := AppendDecimal(nil, []byte(text), scale); err == nil && !strings.HasSuffix(text, ".") {
			t.Fatalf("%q is taken", text)
		}
	})
}

// The limits of PostgreSQL's numeric must not take long, quadratic as they are.
func TestAppendDecimalLongest(t *testing.T) {
	text := strings.Repeat("9", 131072) + "." + strings.Repeat("9", 16383)
	checkDecimal(t, text, 16383)
}

func BenchmarkAppendDecimal(b *testing.B) {
	for name, text := range map[string]string{"short": "12345.67", "18digits": "1234567890123456.78", "38digits": "123456789012345678901234567890123456.78"} {
		b.Run(name, func(b *testing.B) {
			dst, in := make([]byte, 0, 64), []byte(text)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := AppendDecimal(dst[:0], in, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
