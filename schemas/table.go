package schemas

// Table is one version of a table: its columns in the log's order and its key. It is never
// changed once made.
type Table struct {
	Namespace string   `json:"namespace"` // PostgreSQL: the schema
	Name      string   `json:"name"`
	Columns   []Column `json:"columns"`
	Key       []int    `json:"key,omitempty"` // indexes of the key columns, in key order; empty: no key
}

// Column is one column of a table version.
type Column struct {
	Name     string  `json:"name"`
	Type     Type    `json:"type"`
	Nullable bool    `json:"nullable,omitempty"`
	Default  Default `json:"default,omitzero"`
}

// DefaultKind says what is known of a column's default.
type DefaultKind uint8

// The kinds of default. A FunctionDefault stands in the schema as the type's zero value
// (now() as 0). A default that cannot be read, by the source or from Text, is none.
const (
	NoDefault DefaultKind = iota
	ValueDefault
	FunctionDefault
)

// Default is a column's default. Text is the value as neutral text: decimal integers and
// numerics, true or false, strings as they are, bytes as \x and hex digits, dates and
// times in ISO 8601, intervals as a whole number of microseconds (IntervalMicros); it is
// empty unless Kind is ValueDefault.
type Default struct {
	Kind DefaultKind `json:"kind,omitempty"`
	Text string      `json:"text,omitempty"`
}
