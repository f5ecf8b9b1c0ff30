package subscribe

import (
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tailrace/tailrace/schemas"
)

// A Field is a column's value where it matters why there is none.
type Field[T any] struct {
	State State // Set, Null, Unchanged; Unset: the row's version of the table has no such column
	Value T     // if Set
}

// A structPlan says how rows become a struct; for each version of the table it
// makes the plan of its columns once.
type structPlan struct {
	fields []structField
	mutex  sync.Mutex
	tables map[*Table][]int // the column of each field, -1 for none
}

type structField struct {
	index  []int
	name   string // of the column
	tagged bool
	shape  shape
}

// A shape is how a field takes null and unchanged.
type shape uint8

const (
	plain    shape = iota
	pointer        // nil for null
	sqlNull        // sql.Null: V, Valid
	withWhy        // Field: State, Value
	bigDecim       // *big.Rat, a value and not a pointer to one
)

var (
	ratType      = reflect.TypeFor[*big.Rat]()
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	fieldPackage = reflect.TypeFor[Field[int]]().PkgPath()
)

// planOf reads the fields of T.
func planOf[T any]() (*structPlan, error) {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("rows cannot become a %v: a struct is needed", t)
	}
	p := &structPlan{tables: make(map[*Table][]int)}
	for _, f := range reflect.VisibleFields(t) {
		tag, tagged := f.Tag.Lookup("tailrace")
		if !f.IsExported() || tag == "-" || f.Anonymous && !tagged {
			continue
		}
		name := f.Name
		if tagged {
			name = tag
		}
		p.fields = append(p.fields, structField{index: f.Index, name: name, tagged: tagged, shape: shapeOf(f.Type)})
	}
	if len(p.fields) == 0 {
		return nil, fmt.Errorf("%v has no exported fields", t)
	}
	return p, nil
}

func shapeOf(t reflect.Type) shape {
	switch {
	case t == ratType:
		return bigDecim
	case t.Kind() == reflect.Pointer:
		return pointer
	case t.PkgPath() == "database/sql" && strings.HasPrefix(t.Name(), "Null["):
		return sqlNull
	case t.PkgPath() == fieldPackage && strings.HasPrefix(t.Name(), "Field["):
		return withWhy
	}
	return plain
}

// columns returns the column of each field.
func (p *structPlan) columns(t *Table) []int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if columns, ok := p.tables[t]; ok {
		return columns
	}
	columns := make([]int, len(p.fields))
	for i := range p.fields {
		columns[i] = p.fields[i].column(t)
	}
	p.tables[t] = columns
	return columns
}

func (f *structField) column(t *Table) int {
	if f.tagged {
		return t.Column(f.name)
	}
	for i := range t.Columns {
		if strings.EqualFold(strings.ReplaceAll(t.Columns[i].Name, "_", ""), strings.ReplaceAll(f.name, "_", "")) {
			return i
		}
	}
	return -1
}

// scanRow makes a T of a row, and names the columns that are unchanged; nil of
// none.
func scanRow[T any](p *structPlan, row Row) (*T, []string, error) {
	if !row.Present() {
		return nil, nil, nil
	}
	out := new(T)
	v := reflect.ValueOf(out).Elem()
	var unchanged []string
	for i, column := range p.columns(row.table) {
		if column < 0 {
			continue
		}
		c, value := &row.table.Columns[column], row.Column(column)
		if value.State() == Unchanged {
			unchanged = append(unchanged, c.Name)
		}
		f := &p.fields[i]
		if err := f.set(v.FieldByIndex(f.index), value, c); err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	return out, unchanged, nil
}

func (f *structField) set(dst reflect.Value, v Value, c *Column) error {
	state := v.State()
	switch f.shape {
	case withWhy:
		dst.FieldByName("State").SetUint(uint64(state))
		dst = dst.FieldByName("Value")
	case sqlNull:
		dst.FieldByName("Valid").SetBool(state == Set)
		dst = dst.FieldByName("V")
	case pointer:
		if state == Set {
			dst.Set(reflect.New(dst.Type().Elem()))
			dst = dst.Elem()
		}
	case plain:
		if state == Null {
			return fmt.Errorf("it is null, which a %v cannot be: use a pointer, sql.Null or subscribe.Field", dst.Type())
		}
	}
	if state != Set {
		return nil
	}
	return setValue(dst, v, &c.Type)
}

// setValue sets dst to a value that is set.
func setValue(dst reflect.Value, v Value, t *schemas.Type) error {
	switch {
	case dst.Type() == ratType || t.Kind == schemas.Decimal || t.Kind == schemas.VarDecimal:
		return setDecimal(dst, v, t)
	case dst.Type() == timeType:
		return setTime(dst, v, t)
	case dst.Type() == durationType:
		return setDuration(dst, v, t)
	}
	kind := v.Kind()
	switch dst.Kind() {
	case reflect.Bool:
		if kind == schemas.AvroBoolean {
			dst.SetBool(v.Bool())
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if isInteger(kind) && !dst.OverflowInt(v.Int()) {
			dst.SetInt(v.Int())
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if isInteger(kind) && v.Int() >= 0 && !dst.OverflowUint(uint64(v.Int())) {
			dst.SetUint(uint64(v.Int()))
			return nil
		}
	case reflect.Float32, reflect.Float64:
		if kind == schemas.AvroFloat || kind == schemas.AvroDouble {
			dst.SetFloat(v.Float())
			return nil
		}
	case reflect.String:
		if kind == schemas.AvroString {
			dst.SetString(string(v.Bytes()))
			return nil
		}
	case reflect.Slice:
		if kind == schemas.AvroArray {
			return setSlice(dst, v, t)
		}
		if dst.Type().Elem().Kind() == reflect.Uint8 && (kind == schemas.AvroBytes || kind == schemas.AvroString) {
			dst.SetBytes(append([]byte{}, v.Bytes()...))
			return nil
		}
	}
	return unfit(dst, v)
}

func isInteger(k schemas.AvroKind) bool { return k == schemas.AvroInt || k == schemas.AvroLong }

func unfit(dst reflect.Value, v Value) error {
	if isInteger(v.Kind()) {
		return fmt.Errorf("%d does not fit into a %v", v.Int(), dst.Type())
	}
	return fmt.Errorf("a value of Avro type %v does not fit into a %v", v.Kind(), dst.Type())
}

func setSlice(dst reflect.Value, v Value, t *schemas.Type) error {
	if t.Elem == nil {
		return unfit(dst, v)
	}
	out := reflect.MakeSlice(dst.Type(), v.Len(), v.Len())
	item, ok := v.Inner()
	for i := 0; ok; i++ {
		f := structField{shape: shapeOf(dst.Type().Elem())}
		if err := f.set(out.Index(i), item, &Column{Type: *t.Elem}); err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
		item, ok = item.Next(v)
	}
	dst.Set(out)
	return nil
}

// setDecimal sets a string, a float or a *big.Rat.
func setDecimal(dst reflect.Value, v Value, t *schemas.Type) error {
	scale, bytes := int64(t.Scale), v
	if v.Kind() == schemas.AvroRecord { // VariableScaleDecimal: scale, value
		first, _ := v.Inner()
		second, ok := first.Next(v)
		if !ok {
			return unfit(dst, v)
		}
		scale, bytes = first.Int(), second
	}
	if bytes.Kind() != schemas.AvroBytes || scale < 0 || scale > 1<<17 {
		return unfit(dst, v)
	}
	text := decimalText(bytes.Bytes(), int(scale))
	switch {
	case dst.Kind() == reflect.String:
		dst.SetString(text)
	case dst.Kind() == reflect.Float64 || dst.Kind() == reflect.Float32:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		dst.SetFloat(f)
	case dst.Type() == ratType:
		r, ok := new(big.Rat).SetString(text)
		if !ok {
			return unfit(dst, v)
		}
		dst.Set(reflect.ValueOf(r))
	default:
		return unfit(dst, v)
	}
	return nil
}

// decimalText writes big-endian two's complement with a decimal point before
// the last scale digits.
func decimalText(b []byte, scale int) string {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
		n.Neg(n)
	}
	digits := n.String()
	if scale == 0 {
		return sign + digits
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

func setTime(dst reflect.Value, v Value, t *schemas.Type) error {
	var at time.Time
	switch {
	case t.Kind == schemas.Date && isInteger(v.Kind()):
		at = time.Unix(v.Int()*24*60*60, 0)
	case t.Kind == schemas.Timestamp && isInteger(v.Kind()) && t.Precision <= 3:
		at = time.UnixMilli(v.Int())
	case t.Kind == schemas.Timestamp && isInteger(v.Kind()):
		at = time.UnixMicro(v.Int())
	case t.Kind == schemas.ZonedTimestamp && v.Kind() == schemas.AvroString:
		var err error
		if at, err = time.Parse(time.RFC3339Nano, string(v.Bytes())); err != nil {
			return fmt.Errorf("%q does not fit into a time.Time", v.Bytes())
		}
	default:
		return unfit(dst, v)
	}
	dst.Set(reflect.ValueOf(at.UTC()))
	return nil
}

func setDuration(dst reflect.Value, v Value, t *schemas.Type) error {
	unit := time.Microsecond
	if t.Kind == schemas.Time && t.Precision <= 3 {
		unit = time.Millisecond
	}
	if t.Kind != schemas.Time && t.Kind != schemas.Interval || !isInteger(v.Kind()) || v.Int() > int64(1<<63-1)/int64(unit) || v.Int() < -int64(1<<63-1)/int64(unit) {
		return unfit(dst, v)
	}
	dst.SetInt(v.Int() * int64(unit))
	return nil
}
