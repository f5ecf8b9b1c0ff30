// Package schemas holds what a table is, how its rows are written in Avro, and which
// schemas follow from it. What sources share is here, so that two sources cannot write
// one type in two ways.
//
// A source describes each version of a table as a Table. Derive makes the topic's name and
// the Avro schemas of keys and envelopes from it, as Debezium and Confluent's AvroData
// would. From a version a source compiles its plan: one encoder for each column, which
// calls one of the Append functions (and, if Column.Union says so, AppendUnion before it).
// A change is before, after, SourceWriter.Append, AppendEnvelopeTail; nothing on that way
// allocates.
//
// To read, CompileSchema compiles the text of any Avro schema, and Schema.Decode lays a
// value out in a tape of Values that is used again for the next, without boxing.
// CheckCompatible compares two schemas by the rules of Avro's schema resolution.
//
// Schemas and bodies may come from anybody: all that reads them is bounded and returns
// errors.
package schemas
