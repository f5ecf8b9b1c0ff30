package workload

import (
	"fmt"
	"strings"
)

// Table is a table of the workload. All of them have, after their key, the columns
// writer, wseq, ver and body, and some a column note.
type Table struct {
	Name string
	Key  []Column // none: rows are only inserted
	Note bool     // a column note, stored out of line and never updated
	Full bool     // REPLICA IDENTITY FULL
	Hot  bool     // rows are there from the start and only updated, by all writers
}

// Column is a column of a key.
type Column struct{ Name, Type string }

// Tables are the tables that the writers change, in the schema public.
var Tables = []Table{
	{Name: "orders", Key: []Column{{"id", "bigint"}}},
	{Name: "lines", Key: []Column{{"region", "integer"}, {"code", "text"}}, Full: true},
	{Name: "accounts", Key: []Column{{"iban", "text"}}, Note: true},
	{Name: "journal", Full: true},
	{Name: "hot", Key: []Column{{"id", "integer"}}, Hot: true},
	{Name: Mirror, Key: []Column{{"id", "integer"}}, Hot: true},
}

// Mirror is the table that is as the hot table after every transaction, and only then: what
// a transaction does to a hot row it does to the mirror's, too, at its end. Who sees them
// differ has seen a part of a transaction.
const Mirror = "mirror"

// Barrier is the table whose one row says that everything before it is through.
var Barrier = Table{Name: "barrier", Key: []Column{{"id", "bigint"}}}

// HotRows is how many rows the hot table and its mirror have.
const HotRows = 8

// Body is the column body of a row: it depends on what the row is, so that a mix-up of
// rows or versions shows. key is as KeyText writes it. Rows of bulk transactions are long.
func Body(table, key string, ver int64) string {
	body := fmt.Sprintf("%s/%s/%d", table, key, ver)
	if ver >= bulkVersion {
		body += strings.Repeat(".", bulkPadding)
	}
	return body
}

// A bulk transaction inserts bulkRows long rows into the table without a key, by one
// statement: more bytes than a capture will keep before it writes, so that it can be
// killed when it has written half a transaction.
const (
	bulkVersion = 1_000_000_000_000 // versions from here on are of bulk rows
	bulkPadding = 16000             // bytes
	bulkRows    = 300
)

// NoteSize is the size of a note: beyond what PostgreSQL keeps in the row itself.
const NoteSize = 2600

// Note is the column note of a row, from the version that inserted it: text that does not
// compress well enough to be stored in line.
func Note(key string, ver int64) string {
	var b strings.Builder
	state := uint64(len(key))*7919 + uint64(ver)
	for _, c := range key {
		state = state*31 + uint64(c)
	}
	for b.Len() < NoteSize {
		state = state*6364136223846793005 + 1442695040888963407
		fmt.Fprintf(&b, "%016x", state)
	}
	return b.String()[:NoteSize]
}

// KeyText is a row's key as one text: its values in key order, parted by commas.
func KeyText(values []any) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, ",")
}

// DDL is what makes the tables.
func DDL() []string {
	var out []string
	for _, t := range append(Tables[:len(Tables):len(Tables)], Barrier) {
		out = append(out, t.ddl()...)
	}
	for id := range HotRows {
		for _, name := range []string{"hot", Mirror} {
			out = append(out, fmt.Sprintf("INSERT INTO %s VALUES (%d, 0, 0, 0, '%s')", name, id, Body(name, fmt.Sprint(id), 0)))
		}
	}
	return out
}

func (t *Table) ddl() []string {
	var columns, key []string
	for _, c := range t.Key {
		columns = append(columns, c.Name+" "+c.Type+" NOT NULL")
		key = append(key, c.Name)
	}
	columns = append(columns, "writer integer NOT NULL", "wseq bigint NOT NULL", "ver bigint NOT NULL", "body text NOT NULL")
	if t.Note {
		columns = append(columns, "note text")
	}
	if len(key) > 0 {
		columns = append(columns, "PRIMARY KEY ("+strings.Join(key, ", ")+")")
	}
	out := []string{"CREATE TABLE " + t.Name + " (" + strings.Join(columns, ", ") + ")"}
	if t.Note {
		out = append(out, "ALTER TABLE "+t.Name+" ALTER COLUMN note SET STORAGE EXTERNAL")
	}
	if t.Full {
		out = append(out, "ALTER TABLE "+t.Name+" REPLICA IDENTITY FULL")
	}
	return out
}
