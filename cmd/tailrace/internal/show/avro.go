package show

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/linkedin/goavro/v2"
)

// Schema renders values of one Avro schema.
type Schema struct {
	root  *node
	codec *goavro.Codec
}

// Parse reads an Avro schema.
func Parse(text string) (*Schema, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		if !strings.HasPrefix(strings.TrimSpace(text), `"`) {
			return nil, fmt.Errorf("parse schema: %w", err)
		}
	}
	p := parser{names: map[string]*node{}}
	root, err := p.parse(v, "", 0)
	if err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	simple, err := json.Marshal(plain(root, map[*node]bool{}))
	if err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	codec, err := goavro.NewCodec(string(simple))
	if err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	return &Schema{root, codec}, nil
}

var errTrailing = errors.New("bytes are left after the value")

// JSON decodes one value, which must take all of body, and returns it as JSON.
func (s *Schema) JSON(body []byte) (json.RawMessage, error) {
	v, rest, err := s.codec.NativeFromBinary(body)
	if err != nil {
		return nil, fmt.Errorf("decode Avro: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("decode Avro: %w", errTrailing)
	}
	var out bytes.Buffer
	if err := render(&out, s.root, v); err != nil {
		return nil, fmt.Errorf("decode Avro: %w", err)
	}
	return out.Bytes(), nil
}

// variableScale is Debezium's record for a numeric without a scale.
const variableScale = "io.debezium.data.VariableScaleDecimal"

// render writes a decoded value as JSON.
func render(out *bytes.Buffer, n *node, v any) error {
	switch n.kind {
	case "union":
		return renderUnion(out, n, v)
	case "record", "error":
		return renderRecord(out, n, v)
	case "array":
		return renderArray(out, n, v)
	case "map":
		return renderMap(out, n, v)
	case "bytes", "fixed":
		b, ok := v.([]byte)
		if !ok {
			return mismatch(n, v)
		}
		if n.decimal {
			return text(out, decimalText(b, n.scale))
		}
		return text(out, base64.StdEncoding.EncodeToString(b))
	case "enum":
		symbol, _ := v.(string)
		i, err := strconv.Atoi(strings.TrimPrefix(symbol, "S"))
		if err != nil || i >= len(n.symbols) {
			return mismatch(n, v)
		}
		return text(out, n.symbols[i])
	case "float", "double":
		return renderFloat(out, v)
	}
	b, err := marshal(v)
	out.Write(b)
	return err
}

// renderUnion writes the value of the branch that it holds.
func renderUnion(out *bytes.Buffer, n *node, v any) error {
	if v == nil {
		out.WriteString("null")
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return mismatch(n, v)
	}
	for name, inner := range m {
		for _, b := range n.branches {
			if b.alias == name || b.alias == "" && b.kind == name {
				return render(out, b, inner)
			}
		}
	}
	return mismatch(n, v)
}

// renderRecord writes a record's fields in the schema's order.
func renderRecord(out *bytes.Buffer, n *node, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return mismatch(n, v)
	}
	if n.name == variableScale {
		scale, isInt := m["F0"].(int32)
		value, isBytes := m["F1"].([]byte)
		if isInt && isBytes && scale >= 0 && scale <= 20000 {
			return text(out, decimalText(value, int(scale)))
		}
	}
	out.WriteByte('{')
	for i, f := range n.fields {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := text(out, f.name); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := render(out, f.node, m["F"+strconv.Itoa(i)]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// renderArray writes an array's items.
func renderArray(out *bytes.Buffer, n *node, v any) error {
	list, ok := v.([]any)
	if !ok {
		return mismatch(n, v)
	}
	out.WriteByte('[')
	for i, item := range list {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := render(out, n.items, item); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	return nil
}

// renderMap writes a map's entries in the order of their keys.
func renderMap(out *bytes.Buffer, n *node, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return mismatch(n, v)
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := text(out, k); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := render(out, n.items, m[k]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// renderFloat writes a number, or as text what JSON has no number for.
func renderFloat(out *bytes.Buffer, v any) error {
	var f float64
	switch t := v.(type) {
	case float32:
		f = float64(t)
	case float64:
		f = t
	default:
		return fmt.Errorf("float is a %T", v)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return text(out, strings.TrimPrefix(fmt.Sprint(f), "+"))
	}
	b, err := json.Marshal(v)
	out.Write(b)
	return err
}

// mismatch says that a decoded value is not of its schema's type.
func mismatch(n *node, v any) error { return fmt.Errorf("%s is a %T", n.kind, v) }

// text writes s as JSON text.
func text(out *bytes.Buffer, s string) error {
	b, err := marshal(s)
	out.Write(b)
	return err
}

// marshal is json.Marshal without making < > & unreadable.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// decimalText writes a two's complement big-endian number with scale digits after the
// point.
func decimalText(b []byte, scale int) string {
	i := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		i.Sub(i, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	digits := new(big.Int).Abs(i).String()
	if pad := scale + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	out := digits[:len(digits)-scale]
	if scale > 0 {
		out += "." + digits[len(digits)-scale:]
	}
	if i.Sign() < 0 {
		out = "-" + out
	}
	return out
}
