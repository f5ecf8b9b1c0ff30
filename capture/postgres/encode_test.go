package postgres

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// encodeOne encodes a text as a column of a type, without a union.
func encodeOne(t schemas.Type, text string) ([]byte, error) {
	c := column{}
	if err := c.setType(&t); err != nil {
		return nil, err
	}
	return c.encode(nil, []byte(text), &c)
}

func TestTextsThatAreNone(t *testing.T) {
	elem := schemas.Type{Kind: schemas.Int32}
	for _, test := range []struct {
		typ   schemas.Type
		texts []string
	}{
		{schemas.Type{Kind: schemas.Bool}, []string{"", "true", "x"}},
		{schemas.Type{Kind: schemas.Int16}, []string{"", "-", "32768", "-32769", "1x", "+1", " 1"}},
		{schemas.Type{Kind: schemas.Int32}, []string{"2147483648", "1.0"}},
		{schemas.Type{Kind: schemas.Int64}, []string{"9223372036854775808", "-9223372036854775809", "99999999999999999999", "+1"}},
		{schemas.Type{Kind: schemas.Float64}, []string{"", "x", "1e999"}},
		{schemas.Type{Kind: schemas.Decimal, Precision: 4, Scale: 2}, []string{"", "x", "1.234"}},
		{schemas.Type{Kind: schemas.Bytes}, []string{`\x1`, `\xzz`, `\9`, `\400`, `\1`}},
		{schemas.Type{Kind: schemas.Date}, []string{"", "2024-13-01", "2023-02-29", "2024-1-1", "2024-01-01x", "24-01-01", "2024-00-01", "2024-01-00", "1900-02-29", "123456789-01-01"}},
		{schemas.Type{Kind: schemas.Time}, []string{"", "25:00:00", "24:00:01", "12:60:00", "12:00", "12:00:00.", "12:00:00x", "1:00:00"}},
		{schemas.Type{Kind: schemas.Timestamp}, []string{"2024-01-01", "2024-01-01 ", "2024-01-01 12:00:00+00", "2024-01-01_12:00:00"}},
		{schemas.Type{Kind: schemas.ZonedTimestamp}, []string{"2024-01-01 12:00:00", "2024-01-01 12:00:00+", "2024-01-01 12:00:00+0", "2024-01-01 12:00:00+00:", "2024-01-01 12:00:00+00:00:00:00", "soon"}},
		{schemas.Type{Kind: schemas.ZonedTime}, []string{"12:00:00", "x"}},
		{schemas.Type{Kind: schemas.Interval}, []string{"", "1", "1 week", "1 day 2", "1:2", "01:02:03 1 day", "99999999999 days", "2000000000 years", "99999999999999999999:00:00"}},
		{schemas.Type{Kind: schemas.Array, Elem: &elem}, []string{"", "{", "1,2", "{1,}", "{,1}", `{"1}`, `{"1"x}`, `{"1",}`, `{"1\`, `{1\,2}`, "[0:1]", "{x}"}},
	} {
		for _, text := range test.texts {
			if b, err := encodeOne(test.typ, text); err == nil {
				t.Errorf("kind %d took %q as %x", test.typ.Kind, text, b)
			}
		}
	}
}

func TestEscapedBytes(t *testing.T) {
	b, err := encodeOne(schemas.Type{Kind: schemas.Bytes}, `a\\b\000\377`)
	if want := schemas.AppendString(nil, "a\\b\x00\xff"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%x, %v", b, err)
	}
}

// Of any moment, what the server would write is read as what time says it is.
func TestTimesAgainstStandardLibrary(t *testing.T) {
	typ := schemas.Type{Kind: schemas.Timestamp, Precision: 6}
	r := rand.New(rand.NewPCG(1, 2))
	check := func(at time.Time) {
		year, bc := at.Year(), ""
		if year <= 0 {
			year, bc = 1-year, " BC"
		}
		text := fmt.Sprintf("%04d-%s", year, at.Format("01-02 15:04:05.999999")) + bc
		b, err := encodeOne(typ, text)
		if want := schemas.AppendLong(nil, at.UnixMicro()); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %x, %v, want %x", text, b, err, want)
		}
		b, err = encodeOne(schemas.Type{Kind: schemas.Date}, fmt.Sprintf("%04d-%s", year, at.Format("01-02"))+bc)
		midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC).Unix()
		if want := schemas.AppendLong(nil, midnight/86400); err != nil || !bytes.Equal(b, want) {
			t.Errorf("date of %s: %x, %v", text, b, err)
		}
	}
	for range 20000 {
		check(time.UnixMicro(r.Int64N(1<<58) - 1<<57).UTC())
	}
	for year := -10; year < 2110; year++ { // every end of February
		check(time.Date(year, 2, 28, 23, 59, 59, 0, time.UTC).AddDate(0, 0, 1))
		check(time.Date(year, 12, 31, 0, 0, 0, 1000, time.UTC))
	}
}

func FuzzTimes(f *testing.F) {
	for _, s := range []string{"2024-05-06 07:08:09.123456+05:30", "0044-03-15 BC", "24:00:00", "infinity", "1 year 2 mons -3 days +04:05:06.7", "12:00:00-08:00:01"} {
		f.Add(s)
	}
	f.Add("2024-02-29 07:08:09.5+00")
	kinds := []schemas.Kind{schemas.Date, schemas.Time, schemas.Timestamp, schemas.ZonedTimestamp, schemas.ZonedTime, schemas.Interval}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range kinds {
			b, err := encodeOne(schemas.Type{Kind: k, Precision: 6}, text)
			if err == nil && len(b) == 0 {
				t.Errorf("kind %d wrote nothing for %q", k, text)
			}
		}
		for digits := range 7 {
			short, ok := appendCommonInstant(nil, []byte(text), digits)
			long, err := slowInstant(text, digits)
			if ok && (err != nil || !bytes.Equal(short, long)) {
				t.Errorf("%q with %d digits: the short way gives %q, the long one %q, %v", text, digits, short, long, err)
			}
		}
		if at, err := time.Parse("2006-01-02 15:04:05.999999", text); err == nil {
			b, err := encodeOne(schemas.Type{Kind: schemas.Timestamp, Precision: 6}, text)
			// time.Parse also takes a comma, one-digit hours and more fraction digits.
			if err == nil && !bytes.Equal(b, schemas.AppendLong(nil, at.UnixMicro())) {
				t.Errorf("%q is %x", text, b)
			}
		}
	})
}

// slowInstant is what encodeZonedTimestamp does without its short way.
func slowInstant(text string, digits int) ([]byte, error) {
	micros, rest, err := parseTimestamp([]byte(text))
	if err != nil {
		return nil, err
	}
	offset, ok := parseOffset(rest)
	if !ok {
		return nil, errNotOfType
	}
	return schemas.AppendZonedTimestamp(nil, micros-offset, &schemas.Type{Kind: schemas.ZonedTimestamp, Precision: digits}), nil
}

func TestCommonInstant(t *testing.T) {
	taken := 0
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		digits := r.IntN(7)
		at := time.UnixMicro(r.Int64N(1<<56) - 1<<55).UTC().Truncate(time.Duration(math.Pow10(9 - digits)))
		text := at.Format("2006-01-02 15:04:05.999999+00")
		short, ok := appendCommonInstant(nil, []byte(text), digits)
		long, err := slowInstant(text, digits)
		if ok {
			taken++
		}
		if err != nil || ok && !bytes.Equal(short, long) {
			t.Fatalf("%s: %q, %q, %v", text, short, long, err)
		}
	}
	if taken < 10000 {
		t.Errorf("the short way was taken %d times", taken)
	}
}

func FuzzNumeric(f *testing.F) {
	for _, s := range []string{"0", "-1.50", "123456789012345678", "-1234567890123456789.01", "NaN", "9223372036854775807", "1e5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, ok := parseInt([]byte(text))
		want, err := strconv.ParseInt(text, 10, 64)
		if strings.HasPrefix(text, "+") {
			err = errors.New("PostgreSQL writes no plus sign")
		}
		if ok != (err == nil) || ok && v != want {
			t.Errorf("parseInt(%q) = %d, %t, want %d, %v", text, v, ok, want, err)
		}
		if b, err := encodeOne(schemas.Type{Kind: schemas.Decimal, Precision: 30, Scale: 4}, text); err == nil {
			checkDecimal(t, text, b)
		}
	})
}

// checkDecimal compares a length-prefixed two's complement at scale 4 with math/big.
func checkDecimal(t *testing.T, text string, b []byte) {
	want, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Errorf("%q was taken as a number", text)
		return
	}
	n := readLong(b)
	digits := b[len(b)-int(n):]
	got := new(big.Int).SetBytes(digits)
	if n > 0 && digits[0] >= 0x80 {
		got.Sub(got, new(big.Int).Lsh(big.NewInt(1), uint(n)*8))
	}
	if new(big.Rat).SetFrac(got, big.NewInt(10000)).Cmp(want) != 0 {
		t.Errorf("%q is %s / 10000", text, got)
	}
}

// Of any items, the literal that the server would write is taken apart into them.
func FuzzArray(f *testing.F) {
	f.Add("a", `b,"c\`, "NULL", false)
	f.Add("", "{}", " ", true)
	typ := schemas.Type{Kind: schemas.Array, Elem: &schemas.Type{Kind: schemas.String}}
	f.Fuzz(func(t *testing.T, a, b, c string, null bool) {
		_, _ = encodeOne(typ, a) // whatever it is, without a panic
		items := []string{quoteItem(a), quoteItem(b), quoteItem(c)}
		want := schemas.AppendArrayStart(nil, 3)
		for i, s := range []string{a, b, c} {
			if i == 1 && null {
				items[i] = "NULL"
				want = append(want, 0)
				continue
			}
			want = schemas.AppendString(append(want, 2), s)
		}
		want = schemas.AppendArrayEnd(want)
		got, err := encodeOne(typ, "{"+strings.Join(items, ",")+"}")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v, want %x", items, got, err, want)
		}
	})
}

// quoteItem quotes an array's item as array_out does.
func quoteItem(s string) string {
	plain := s != "" && !strings.EqualFold(s, "NULL") && !strings.ContainsAny(s, "{},\"\\ \t\n\r\v\f")
	if plain {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func FuzzBytes(f *testing.F) {
	f.Add([]byte{0, 255, '\\'})
	f.Fuzz(func(t *testing.T, b []byte) {
		want := schemas.AppendBytes(nil, b)
		escaped := ""
		for _, c := range b {
			switch {
			case c == '\\':
				escaped += `\\`
			case c < 32 || c > 126:
				escaped += fmt.Sprintf(`\%03o`, c)
			default:
				escaped += string(rune(c))
			}
		}
		for _, text := range []string{`\x` + hex.EncodeToString(b), escaped} {
			if strings.HasPrefix(text, `\x`) && text == escaped {
				continue
			}
			if got, err := encodeOne(schemas.Type{Kind: schemas.Bytes}, text); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q: %x, %v", text, got, err)
			}
		}
	})
}

func TestFloatsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 10000 {
		v := math.Float64frombits(r.Uint64())
		b, err := encodeOne(schemas.Type{Kind: schemas.Float64}, strconv.FormatFloat(v, 'g', -1, 64))
		if err != nil || !math.IsNaN(v) && !bytes.Equal(b, schemas.AppendDouble(nil, v)) {
			t.Fatalf("%v: %x, %v", v, b, err)
		}
	}
}

func TestKeyJSON(t *testing.T) {
	table := newTestTable(1, "t", identityDefault, col("i", "int8 key"), col("s", "text key"), col("b", "bool key"), col("n", "numeric(5,2) key"),
		col("f", "float8 key"), col("d", "date key"), col("by", "bytea key"), col("tz", "timestamptz(0) key"), col("u", "uuid key"), col("z", "int4 null key"))
	values := []string{"-5", "a\"<ü>", "t", "1.50", "NaN", "1970-01-02", `\x00ff`, "2024-05-06 07:08:09+00", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", nullValue}
	m := tuple(values...)
	fields := make([]field, len(values))
	if _, err := walkTuple(m, 0, fields); err != nil {
		t.Fatal(err)
	}
	rel, err := parseRelation(table.message())
	if err != nil {
		t.Fatal(err)
	}
	p, err := compile(rel, &capture.Route{Table: &table.table}, false)
	if err != nil {
		t.Fatal(err)
	}
	got := string(appendKeyJSON(nil, p, m, fields))
	want := `{"i":-5,"s":"a\"<ü>","b":true,"n":1.50,"f":"NaN","d":1,"by":"AP8=","tz":"2024-05-06T07:08:09Z","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","z":null}`
	if got != want {
		t.Errorf("got %s", got)
	}
}

func TestParseDefault(t *testing.T) {
	text := resolvedType{typ: schemas.Type{Kind: schemas.String}, defaults: true}
	number := resolvedType{typ: schemas.Type{Kind: schemas.Int32}, defaults: true}
	boolean := resolvedType{typ: schemas.Type{Kind: schemas.Bool}, defaults: true}
	stamp := resolvedType{typ: schemas.Type{Kind: schemas.Timestamp, Precision: 6}, defaults: true}
	enum := resolvedType{typ: schemas.Type{Kind: schemas.Enum}, defaults: true}
	value := func(s string) schemas.Default { return schemas.Default{Kind: schemas.ValueDefault, Text: s} }
	function, none := schemas.Default{Kind: schemas.FunctionDefault}, schemas.Default{}
	for _, test := range []struct {
		expression string
		typ        resolvedType
		want       schemas.Default
	}{
		{"", number, none}, {"5", number, value("5")}, {"'-5'::integer", number, value("-5")}, {"(-5)", number, value("-5")},
		{"nextval('s'::regclass)", number, function}, {"NULL::integer", number, none}, {"1 + 2", number, none}, {"(1 + 2)", number, none},
		{"'x'::text", text, value("x")}, {"'it''s'::character varying", text, value("it's")}, {`E'a\\b'::text`, text, value(`a\b`)},
		{`'x'::"My ""odd"" type"`, text, value("x")}, {"'x'::character varying(10)::text", text, value("x")}, {"'a'::text || 'b'::text", text, none},
		{"CURRENT_USER", text, function}, {"lower('A)B'::text)", text, function}, {"f(1) + g(2)", number, none}, {"'open", text, none},
		{"true", boolean, value("true")}, {"'f'::boolean", boolean, value("false")}, {"'maybe'::boolean", boolean, none},
		{"'2024-01-02 03:04:05'::timestamp without time zone", stamp, value("2024-01-02 03:04:05")}, {"'infinity'::timestamp without time zone", stamp, none},
		{"now()", stamp, function}, {"LOCALTIMESTAMP", stamp, function}, {"('now'::text)::date", stamp, none},
		{"'a'::mood", enum, value("a")}, {"first_mood()", enum, none},
		{"5", resolvedType{typ: schemas.Type{Kind: schemas.Int32}}, none},
	} {
		if got := parseDefault(test.expression, test.typ); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.expression, got, test.want)
		}
	}
}

func FuzzParseDefault(f *testing.F) {
	f.Add("'it''s'::text")
	f.Add("nextval('x'::regclass)")
	text := resolvedType{typ: schemas.Type{Kind: schemas.String}, defaults: true}
	f.Fuzz(func(t *testing.T, s string) {
		parseDefault(s, text)
		if got := parseDefault("'"+strings.ReplaceAll(s, "'", "''")+"'::text", text); got.Kind != schemas.ValueDefault || got.Text != s {
			t.Errorf("%q became %+v", s, got)
		}
	})
}

func TestTypeModifiers(t *testing.T) {
	numeric := builtins[1700]
	for _, test := range []struct{ precision, scale int }{{10, 2}, {1000, 1000}, {3, -2}, {2, 5}, {1, -1000}} {
		got := numeric.typeWithMod(int32(test.precision<<16|test.scale&0x7ff) + 4)
		if got.Kind != schemas.Decimal || got.Precision != test.precision || got.Scale != test.scale {
			t.Errorf("numeric(%d,%d) became %+v", test.precision, test.scale, got)
		}
	}
	if got := numeric.typeWithMod(-1); got.Kind != schemas.VarDecimal {
		t.Errorf("%+v", got)
	}
}
