package schemas

import (
	"fmt"
	"strings"
	"testing"
)

// row returns a record with the given fields.
func row(fields ...string) string {
	return `{"type":"record","name":"Row","namespace":"a.b","fields":[` + strings.Join(fields, ",") + `]}`
}

func one(typ string) string { return row(`{"name":"v","type":` + typ + `}`) }

const (
	id       = `{"name":"id","type":"int"}`
	note     = `{"name":"note","type":["null","string"],"default":null}`
	noteBare = `{"name":"note","type":["null","string"]}`
	list     = `{"type":"record","name":"List","fields":[{"name":"head","type":"%"},{"name":"tail","type":["null","List"],"default":null}]}`
)

func TestCheckCompatible(t *testing.T) {
	enum := func(rest string) string { return one(`{"type":"enum","name":"E",` + rest + `}`) }
	linked := func(typ string) string { return strings.Replace(list, "%", typ, 1) }
	decimal := func(scale string) string {
		return one(`{"type":"bytes","logicalType":"decimal","precision":10,"scale":` + scale + `}`)
	}
	for name, c := range map[string]struct {
		reader, writer string
		want           string // the reasons, joined by "; "
	}{
		"same":                     {row(id, note), row(id, note), ""},
		"column added, default":    {row(id, note), row(id), ""},
		"column added, no default": {row(id, noteBare), row(id), "note: the field has no default and the writer does not have it"},
		"column dropped":           {row(id), row(id, note), ""},
		"columns in another order": {row(note, id), row(id, note), ""},
		"column renamed, alias":    {row(`{"name":"nr","type":"int","aliases":["id"]}`), row(id), ""},
		"column renamed, no alias": {row(`{"name":"nr","type":"int"}`), row(id), "nr: the field has no default and the writer does not have it"},
		"int to long":              {one(`"long"`), one(`"int"`), ""},
		"int to float":             {one(`"float"`), one(`"int"`), ""},
		"int to double":            {one(`"double"`), one(`"int"`), ""},
		"long to float":            {one(`"float"`), one(`"long"`), ""},
		"long to double":           {one(`"double"`), one(`"long"`), ""},
		"float to double":          {one(`"double"`), one(`"float"`), ""},
		"string to bytes":          {one(`"bytes"`), one(`"string"`), ""},
		"bytes to string":          {one(`"string"`), one(`"bytes"`), ""},
		"long to int":              {one(`"int"`), one(`"long"`), "v: int cannot read long"},
		"double to float":          {one(`"float"`), one(`"double"`), "v: float cannot read double"},
		"float to long":            {one(`"long"`), one(`"float"`), "v: long cannot read float"},
		"int to string":            {one(`"string"`), one(`"int"`), "v: string cannot read int"},
		"int to boolean":           {one(`"boolean"`), one(`"int"`), "v: boolean cannot read int"},
		"nullable since":           {one(`["null","int"]`), one(`"int"`), ""},
		"not nullable since":       {one(`"int"`), one(`["null","int"]`), "v: int cannot read null"},
		"nullable and wider since": {one(`["null","long"]`), one(`"int"`), ""},
		"union wider":              {one(`["null","int","string"]`), one(`["null","int"]`), ""},
		"union narrower":           {one(`["null","int"]`), one(`["null","int","string"]`), "v: no branch of the union [null, int] can read string"},
		"union, other order":       {one(`["int","null"]`), one(`["null","int"]`), ""},
		"union, promoted branch":   {one(`["null","double"]`), one(`["null","int"]`), ""},
		"union, changed branch":    {one(`["null","int"]`), one(`["null","long"]`), "v: no branch of the union [null, int] can read long"},
		"union of many branches": {`["null","boolean","int","long","float","double","string","bytes",{"type":"array","items":"int"},{"type":"map","values":"int"},{"type":"fixed","name":"F","size":1}]`,
			`{"type":"enum","name":"E","symbols":[]}`, "the schema itself: no branch of the union [null, boolean, int, long, float, double, string, bytes, array, map, …] can read enum E"},
		"array items":                {one(`{"type":"array","items":"int"}`), one(`{"type":"array","items":"long"}`), "v[]: int cannot read long"},
		"map values":                 {one(`{"type":"map","values":"int"}`), one(`{"type":"map","values":"string"}`), "v{}: int cannot read string"},
		"array to map":               {one(`{"type":"map","values":"int"}`), one(`{"type":"array","items":"int"}`), "v: map cannot read array"},
		"enum grows":                 {enum(`"symbols":["a","b"]`), enum(`"symbols":["a"]`), ""},
		"enum shrinks":               {enum(`"symbols":["a"]`), enum(`"symbols":["a","b","c"]`), "v: enum a.b.E has no default and lacks the symbols b, c"},
		"enum shrinks, default":      {enum(`"symbols":["a"],"default":"a"`), enum(`"symbols":["a","b"]`), ""},
		"decimal, another scale":     {decimal("2"), decimal("4"), ""},
		"decimal to plain bytes":     {one(`"bytes"`), decimal("2"), ""},
		"decimal to long":            {one(`"long"`), decimal("2"), "v: long cannot read bytes"},
		"fixed, same":                {one(`{"type":"fixed","name":"F","size":4}`), one(`{"type":"fixed","name":"F","size":4}`), ""},
		"fixed, another size":        {one(`{"type":"fixed","name":"F","size":4}`), one(`{"type":"fixed","name":"F","size":8}`), "v: fixed a.b.F of 4 bytes cannot read 8 bytes"},
		"another record":             {`{"type":"record","name":"A","fields":[]}`, `{"type":"record","name":"B","fields":[]}`, "the schema itself: record A cannot read record B: another name, no alias"},
		"another record, alias":      {`{"type":"record","name":"A","aliases":["x.B"],"fields":[]}`, `{"type":"record","name":"x.B","fields":[]}`, ""},
		"another namespace":          {`{"type":"record","name":"x.A","fields":[]}`, `{"type":"record","name":"y.A","fields":[]}`, ""},
		"primitives":                 {`"int"`, `"string"`, "the schema itself: int cannot read string"},
		"record to primitive":        {`"int"`, row(), "the schema itself: int cannot read record a.b.Row"},
		"recursive, promoted":        {linked("long"), linked("int"), ""},
		"recursive, narrowed":        {linked("int"), linked("long"), "head: int cannot read long"},
		"nested, in a union":         {one(`["null",{"type":"record","name":"In","fields":[` + id + `,` + noteBare + `]}]`), one(`["null",{"type":"record","name":"In","fields":[` + id + `]}]`), "v.note: the field has no default and the writer does not have it"},
		"named twice, told once":     {row(`{"name":"x","type":{"type":"record","name":"In","fields":[`+noteBare+`]}}`, `{"name":"y","type":"In"}`), row(`{"name":"x","type":{"type":"record","name":"In","fields":[]}}`, `{"name":"y","type":"In"}`), "x.note: the field has no default and the writer does not have it"},
		"several reasons":            {row(`{"name":"a","type":"int"}`, `{"name":"b","type":"int"}`), row(`{"name":"a","type":"long"}`, `{"name":"b","type":"string"}`), "a: int cannot read long; b: int cannot read string"},
		"writer's union, one branch": {one(`"double"`), one(`["int","float"]`), ""},
	} {
		reasons, err := CheckCompatible(c.reader, c.writer)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(reasons, "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A pair that is met again inside itself must not pass for good before it is known: here
// P fits only if its own tail does, and the tail's union is tried while P is open.
func TestCheckCompatibleRecursion(t *testing.T) {
	schema := func(last string) string {
		return `{"type":"record","name":"P","fields":[
			{"name":"q","type":["null",{"type":"record","name":"Q","fields":[{"name":"p","type":["null","P"]}]}]},
			{"name":"q2","type":"Q"},
			{"name":"last","type":"` + last + `"}]}`
	}
	reasons, err := CheckCompatible(schema("int"), schema("string"))
	must(t, err)
	if len(reasons) == 0 || !strings.Contains(strings.Join(reasons, "\n"), "last: int cannot read string") {
		t.Errorf("reasons %q", reasons)
	}
	if reasons, err = CheckCompatible(schema("long"), schema("int")); err != nil || len(reasons) > 0 {
		t.Errorf("reasons %q, error %v", reasons, err)
	}
}

func TestCheckCompatibleDerived(t *testing.T) {
	derive := func(change func(*Table)) string {
		table := &Table{Namespace: "public", Name: "t", Columns: goldenColumns(), Key: []int{0}}
		change(table)
		d, err := Derive(table, naming("srv"))
		must(t, err)
		return d.ValueSchema
	}
	old := derive(func(*Table) {})
	for name, c := range map[string]struct {
		change func(*Table)
		want   string
	}{
		"none": {func(*Table) {}, ""},
		"nullable column added": {func(t *Table) {
			t.Columns = append(t.Columns, Column{Name: "n", Type: Type{Kind: String}, Nullable: true})
		}, ""},
		"column with default added": {func(t *Table) {
			t.Columns = append(t.Columns, Column{Name: "n", Type: Type{Kind: Int32}, Default: Default{Kind: ValueDefault, Text: "1"}})
		}, ""},
		"column without default added": {func(t *Table) {
			t.Columns = append(t.Columns, Column{Name: "n", Type: Type{Kind: Int32}})
		}, "before.n: the field has no default and the writer does not have it"},
		"column dropped":   {func(t *Table) { t.Columns = t.Columns[:5] }, ""},
		"int to bigint":    {func(t *Table) { t.Columns[0].Type.Kind = Int64 }, ""},
		"bigint to int":    {func(t *Table) { t.Columns[2].Type.Kind = Int32 }, "before.i8: no branch of the union [null, int] can read long"},
		"numeric rescaled": {func(t *Table) { t.Columns[9].Type.Scale = 4 }, ""},
		"set not null":     {func(t *Table) { t.Columns[1].Nullable = false }, "before.i2: int cannot read null"},
	} {
		reasons, err := CheckCompatible(derive(c.change), old)
		must(t, err)
		if got := strings.Join(reasons, "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestCheckCompatibleRefuses(t *testing.T) {
	for _, pair := range [][2]string{{"{", `"int"`}, {`"int"`, "{"}, {`"int"`, `"nothing"`}} {
		if reasons, err := CheckCompatible(pair[0], pair[1]); err == nil {
			t.Errorf("%s reads %s: %q", pair[0], pair[1], reasons)
		}
	}
}

// Whoever sends schemas must not be able to keep us busy.
func TestCheckCompatibleBounds(t *testing.T) {
	union := func(prefix string, n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf(`{"type":"record","name":"%s%d","fields":[]}`, prefix, i)
		}
		return "[" + strings.Join(names, ",") + "]"
	}
	reasons, err := CheckCompatible(union("A", 300), union("A", 300))
	if err != nil || len(reasons) > 0 {
		t.Errorf("300 branches: %.200q, %v", reasons, err)
	}
	reasons, err = CheckCompatible(union("A", 300), union("B", 300))
	if err != nil || len(reasons) != maxReasons || len(reasons[0]) > 500 {
		t.Errorf("300 other branches: %d reasons, %v", len(reasons), err)
	}
	if _, err = CheckCompatible(union("A", 1500), union("B", 1500)); err == nil {
		t.Error("1500 other branches are compared")
	}
}

// Q is compared while P is open, and fits if P does. P does not fit, which harms field p
// little, since another branch fits; but then Q must not pass for good in field q.
func TestCheckCompatibleAssumption(t *testing.T) {
	schema := func(last, more string) string {
		return `{"type":"record","name":"Top","fields":[
			{"name":"p","type":["null",{"type":"record","name":"P","fields":[
				{"name":"q","type":{"type":"record","name":"Q","fields":[{"name":"p","type":["null","P"]}]}},
				{"name":"last","type":"` + last + `"}]}` + more + `]},
			{"name":"q","type":"Q"}]}`
	}
	const fitting = `,{"type":"record","name":"other.P","fields":[]}`
	for last, ok := range map[string]bool{"string": true, "int": false} {
		reasons, err := CheckCompatible(schema(last, fitting), schema("string", ""))
		if must(t, err); (len(reasons) == 0) != ok {
			t.Errorf("%s: reasons %q", last, reasons)
		}
	}
}
