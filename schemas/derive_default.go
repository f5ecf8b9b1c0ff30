package schemas

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Union says how values of the column are written: not as a union if union is false, else
// after AppendUnion with the branch null or value. A nullable column is ["null",T], one
// with a default [T,"null"].
func (c *Column) Union() (union bool, null, value int64) {
	if !c.Nullable {
		return false, 0, 0
	}
	if _, ok := c.defaultJSON(); ok {
		return true, 1, 0
	}
	return true, 0, 1
}

// defaultJSON returns the column's default as it stands in a schema. There is none for a
// default that cannot be read, nor for a type whose default Debezium does not write
// either; value is empty then.
func (c *Column) defaultJSON() (value string, ok bool) {
	text := c.Default.Text
	switch c.Default.Kind {
	case NoDefault:
		return "", false
	case FunctionDefault:
		if text, ok = c.Type.zeroText(); !ok {
			return "", false
		}
	}
	if value, ok = c.Type.valueJSON(text); !ok {
		return "", false
	}
	return value, true
}

// zeroText is the neutral text of what stands for a default that is a function.
func (t *Type) zeroText() (text string, ok bool) {
	switch t.Kind {
	case Bool:
		return "false", true
	case Int16, Int32, Int64, Float32, Float64, Decimal, Interval:
		return "0", true
	case String, XML:
		return "", true
	case JSON:
		return "{}", true
	case UUID:
		return "00000000-0000-0000-0000-000000000000", true
	case Date:
		return "1970-01-01", true
	case Time:
		return "00:00:00", true
	case Timestamp, ZonedTimestamp:
		return "1970-01-01T00:00:00Z", true
	}
	return "", false // Bytes, Enum, ZonedTime, VarDecimal, Array
}

// valueJSON returns a neutral text as the JSON of an Avro default; value means nothing if
// the text is not of the type.
func (t *Type) valueJSON(text string) (value string, ok bool) {
	switch t.Kind {
	case Bool:
		return text, text == "true" || text == "false"
	case Int16:
		return integerJSON(text, 16)
	case Int32:
		return integerJSON(text, 32)
	case Int64, Interval:
		return integerJSON(text, 64)
	case Float32:
		return floatJSON(text, 32)
	case Float64:
		return floatJSON(text, 64)
	case Decimal:
		return decimalJSON(text, t.Scale)
	case Bytes:
		b, err := hex.DecodeString(strings.TrimPrefix(text, `\x`))
		return latin1JSON(b), err == nil && strings.HasPrefix(text, `\x`)
	case String, JSON, XML, Enum:
		return string(appendJSONString(nil, text)), utf8.ValidString(text)
	case UUID:
		return uuidJSON(text)
	case Date, Time, Timestamp, ZonedTimestamp:
		return t.timeJSON(text)
	}
	return "", false
}

func integerJSON(text string, bits int) (string, bool) {
	v, err := strconv.ParseInt(text, 10, bits)
	return strconv.FormatInt(v, 10), err == nil
}

// floatJSON writes a float as Java does: with a point between 1e-3 and 1e7, else as 1.5E10.
func floatJSON(text string, bits int) (string, bool) {
	v, err := strconv.ParseFloat(text, bits)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		return "", false
	}
	if a := math.Abs(v); a == 0 || a >= 1e-3 && a < 1e7 {
		s := strconv.FormatFloat(v, 'f', -1, bits)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s, true
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', -1, bits), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	e, err := strconv.Atoi(exponent)
	return mantissa + "E" + strconv.Itoa(e), err == nil
}

func decimalJSON(text string, scale int) (string, bool) {
	b, err := AppendDecimal(nil, []byte(text), scale)
	if err != nil {
		return "", false
	}
	for b[0]&0x80 != 0 { // the length goes before the bytes
		b = b[1:]
	}
	return latin1JSON(b[1:]), true
}

// latin1JSON writes bytes as Avro's defaults have them: each is one character.
func latin1JSON(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(appendJSONString(nil, string(runes)))
}

func uuidJSON(text string) (string, bool) {
	text = strings.ToLower(text)
	digits := strings.ReplaceAll(text, "-", "")
	if b, err := hex.DecodeString(digits); err != nil || len(b) != 16 || len(text) != 36 {
		return "", false
	}
	for _, i := range []int{8, 13, 18, 23} {
		if text[i] != '-' {
			return "", false
		}
	}
	return `"` + text + `"`, true
}

// timeLayouts are the forms of ISO 8601 in which databases write defaults.
var timeLayouts = []string{
	"2006-01-02", "15:04:05", "15:04",
	"2006-01-02T15:04:05Z07", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04",
}

// timeJSON reads a date or time; what has no zone is in UTC.
func (t *Type) timeJSON(text string) (string, bool) {
	if len(text) > 10 && text[10] == ' ' {
		text = text[:10] + "T" + text[11:]
	}
	for _, layout := range timeLayouts {
		at, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		return t.instantJSON(at, strings.HasPrefix(layout, "15"))
	}
	return "", false
}

func (t *Type) instantJSON(at time.Time, clockOnly bool) (string, bool) {
	micros := at.UnixMicro()
	if clockOnly != (t.Kind == Time) {
		return "", false
	}
	switch t.Kind {
	case Date:
		return strconv.FormatInt(floorDiv(micros, microsPerDay), 10), true
	case ZonedTimestamp:
		return `"` + string(appendInstant(nil, micros, t.FractionDigits())) + `"`, true
	case Time: // time.Parse puts a clock without a date into the year 0
		micros -= floorDiv(micros, microsPerDay) * microsPerDay
	}
	if t.Millis() {
		micros = floorDiv(micros, 1000)
	}
	return strconv.FormatInt(micros, 10), true
}
