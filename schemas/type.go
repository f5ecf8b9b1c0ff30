package schemas

// Kind is a neutral column type.
type Kind uint8

// The kinds. Each stands for one row of the type table in the wire format. What databases
// have beyond them is a String. Tables are stored: new kinds go to the end, none is reused.
const (
	Invalid Kind = iota
	Bool
	Int16
	Int32
	Int64
	Float32
	Float64
	Decimal    // numeric(p,s): Type.Precision and Type.Scale
	VarDecimal // numeric without precision
	String
	Bytes
	Date
	Time           // Type.Precision: digits of the fraction of a second
	Timestamp      // the same
	ZonedTimestamp // the same
	ZonedTime      // the same
	Interval       // as microseconds
	UUID
	JSON
	XML
	Enum  // Type.Allowed
	Array // Type.Elem
)

// Type is a column's type with what belongs to it.
type Type struct {
	Kind      Kind     `json:"kind"`
	Precision int      `json:"precision,omitempty"` // decimal digits of a Decimal; fraction digits of times, 0 to 6, negative: not given
	Scale     int      `json:"scale,omitempty"`     // of a Decimal
	Allowed   []string `json:"allowed,omitempty"`   // of an Enum
	Elem      *Type    `json:"elem,omitempty"`      // of an Array
}
