package postgres

import "github.com/tailrace/tailrace/schemas"

// builtin is what a type of pg_catalog is as a neutral type. Source of the numbers:
// PostgreSQL's pg_type.dat.
type builtin struct {
	kind schemas.Kind
	// array: arrays of it are Avro arrays. Of the others Debezium drops the column, and
	// here the array's text is written.
	array bool
	// defaults: Debezium writes defaults of columns of this type into the schema.
	defaults bool
}

var builtins = map[uint32]builtin{
	16:   {schemas.Bool, true, true},
	17:   {schemas.Bytes, true, false},
	18:   {schemas.String, true, false},  // "char"
	19:   {schemas.String, false, false}, // name
	20:   {schemas.Int64, true, true},
	21:   {schemas.Int16, true, true},
	23:   {schemas.Int32, true, true},
	25:   {schemas.String, true, true}, // text
	26:   {schemas.Int64, true, false}, // oid
	114:  {schemas.JSON, true, true},
	142:  {schemas.XML, false, true},
	650:  {schemas.String, true, false}, // cidr
	700:  {schemas.Float32, true, true},
	701:  {schemas.Float64, true, true},
	774:  {schemas.String, true, false}, // macaddr8
	829:  {schemas.String, true, false}, // macaddr
	869:  {schemas.String, true, false}, // inet
	1042: {schemas.String, true, true},  // char(n)
	1043: {schemas.String, true, true},  // varchar
	1082: {schemas.Date, true, true},
	1083: {schemas.Time, true, true},
	1114: {schemas.Timestamp, true, true},
	1184: {schemas.ZonedTimestamp, true, true},
	1186: {schemas.Interval, false, true},
	1266: {schemas.ZonedTime, true, false},
	1700: {schemas.VarDecimal, true, true}, // Decimal with a modifier
	2950: {schemas.UUID, true, true},
	3802: {schemas.JSON, true, true},    // jsonb
	3904: {schemas.String, true, false}, // int4range
	3906: {schemas.String, true, false}, // numrange
	3908: {schemas.String, true, false}, // tsrange
	3910: {schemas.String, true, false}, // tstzrange
	3912: {schemas.String, true, false}, // daterange
	3926: {schemas.String, true, false}, // int8range
}

// typeWithMod returns a type of a kind with what its modifier says.
func (b builtin) typeWithMod(mod int32) schemas.Type {
	t := schemas.Type{Kind: b.kind}
	switch b.kind {
	case schemas.VarDecimal:
		if mod >= 4 { // precision in the upper half, scale in 11 bits with sign
			m := mod - 4
			t.Kind, t.Precision, t.Scale = schemas.Decimal, int(m>>16&0xffff), int((m&0x7ff)^0x400)-0x400
		}
	case schemas.Time, schemas.ZonedTime, schemas.Timestamp, schemas.ZonedTimestamp:
		t.Precision = -1
		if mod >= 0 && mod <= 6 {
			t.Precision = int(mod)
		}
	}
	return t
}
