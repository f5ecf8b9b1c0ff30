package postgres

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/capture"
)

var rewrite = flag.Bool("rewrite", false, "write what comes out into the scripts of testdata")

// golden compares got with the file's content.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

func ordersTable(identity byte) *testTable {
	return newTestTable(7, "orders", identity,
		col("id", "int4 key"), col("name", "text null"), col("price", "numeric(10,2) default 1.50"),
		col("note", "varchar(20) null default x"), col("at", "timestamptz"), col("tags", "text[]"))
}

// row returns a row of ordersTable.
func row(id, name string) []string {
	return []string{id, name, "12.34", nullValue, "2024-05-06 07:08:09.5+00", `{a,NULL,"b c"}`}
}

func TestRowsScripts(t *testing.T) {
	keyOf := func(id string) []string {
		return []string{id, nullValue, nullValue, nullValue, nullValue, nullValue}
	}
	keyless := newTestTable(9, "log", identityFull, col("line", "text null"))
	enum := newTestTable(11, "people", identityDefault, col("id", "int8 key"), col("feels", "mood(sad,ok)"), col("was", "mood(sad,ok)[] null"))
	for name, script := range map[string]struct {
		table    *testTable
		messages [][]byte
	}{
		"insert": {ordersTable(identityDefault), [][]byte{insertMessage(7, row("1", "a")...), insertMessage(7, row("2", nullValue)...)}},
		"update": {ordersTable(identityDefault), [][]byte{updateMessage(7, 0, nil, row("1", "b")), updateMessage(7, 'K', keyOf("1"), row("1", "c"))}},
		"update-full": {ordersTable(identityFull), [][]byte{
			updateMessage(7, 'O', row("1", "a"), row("1", "b")),
			updateMessage(7, 'O', row("1", "a"), row("1", unchangedValue))}},
		"key-change":      {ordersTable(identityDefault), [][]byte{updateMessage(7, 'K', keyOf("1"), row("2", "b"))}},
		"key-change-full": {ordersTable(identityFull), [][]byte{updateMessage(7, 'O', row("1", "a"), row("2", "b"))}},
		"delete":          {ordersTable(identityDefault), [][]byte{deleteMessage(7, 'K', keyOf("1")...)}},
		"delete-full":     {ordersTable(identityFull), [][]byte{deleteMessage(7, 'O', row("1", "a")...)}},
		"truncate":        {ordersTable(identityDefault), [][]byte{truncateMessage(7)}},
		"keyless":         {keyless, [][]byte{insertMessage(9, "a"), updateMessage(9, 'O', []string{"a"}, []string{"b"}), deleteMessage(9, 'O', "b"), truncateMessage(9)}},
		"toast":           {ordersTable(identityDefault), [][]byte{updateMessage(7, 0, nil, []string{"1", unchangedValue, "1.00", unchangedValue, "2024-05-06 07:08:09+00", unchangedValue})}},
		"null-in-not-null": {ordersTable(identityDefault), [][]byte{
			insertMessage(7, "1", nullValue, nullValue, nullValue, nullValue, "{}"),
			insertMessage(7, row("2", "a")...)}},
		"enum": {enum, [][]byte{insertMessage(11, "1", "ok", "{sad,ok}"), insertMessage(11, "2", "glad", nullValue),
			insertMessage(11, "3", "ok", "{sad,high}"), insertMessage(11, "4", "high", "{glad}")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder(t)
			s := newTestStream(t, r, script.table)
			messages := append([][]byte{script.table.message(), beginMessage(5000, 1_600_000_000_000_000, 77)}, script.messages...)
			if err := send(t.Context(), s, append(messages, commitMessage(5000, 5050))...); err != nil {
				t.Fatal(err)
			}
			golden(t, "rows-"+name+".txt", strings.Join(r.lines, "\n")+"\n")
		})
	}
}

func TestUnchangedKeyIsTakenFromTheOldRow(t *testing.T) {
	table := newTestTable(7, "t", identityDefault, col("id", "text key"), col("n", "int4"))
	r := newRecorder(t)
	s := newTestStream(t, r, table)
	err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1),
		updateMessage(7, 'K', []string{"long", nullValue}, []string{unchangedValue, "2"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.lines[len(r.lines)-1]; !strings.HasPrefix(got, `u public.t key={"id":"long"}`) || !strings.Contains(got, `after={"id":"long","n":2}`) {
		t.Error(got)
	}
}

func TestUnchangedValues(t *testing.T) {
	const mark = "__debezium_unavailable_value"
	for _, test := range []struct{ spec, want string }{
		{"text", `"` + mark + `"`},
		{"jsonb null", `"` + mark + `"`},
		{"bytea", `"5f5f64656265"`},
		{"text[]", `["` + mark + `"]`},
		{"jsonb[]", `["` + mark + `"]`},
		{"bytea[] null", `["5f5f64656265`},
		{"int4[]", `[95,95,100,`},
		{"int8[]", `[95,95,100,`},
		{"date[]", `[95,95,100,`},
		{"uuid[]", `["` + nameUUID(mark) + `"]`},
	} {
		t.Run(test.spec, func(t *testing.T) {
			table := newTestTable(7, "t", identityDefault, col("id", "int4 key"), col("v", test.spec))
			r := newRecorder(t)
			s := newTestStream(t, r, table)
			if err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1), updateMessage(7, 0, nil, []string{"1", unchangedValue})); err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(r.lines[len(r.lines)-1], `"v":`)
			if !strings.HasPrefix(after, strings.TrimSuffix(test.want, `"`)) {
				t.Errorf("got %s, want %s", after, test.want)
			}
		})
	}
	for _, spec := range []string{"numeric", "numeric[]", "float8[]", "timestamptz[]", "mood(a)[]", "int2[]"} {
		t.Run("none for "+spec, func(t *testing.T) {
			err := oneRow(t, spec, false, func(s *stream) error {
				return send(t.Context(), s, updateMessage(7, 0, nil, []string{"1", unchangedValue}))
			})
			wantStop(t, err, "column \"v\"", "REPLICA IDENTITY FULL")
		})
	}
}

// Java: UUID.nameUUIDFromBytes("__debezium_unavailable_value".getBytes()) has version 3 and
// the variant of RFC 4122.
func TestNameUUID(t *testing.T) {
	u := nameUUID("hello")
	if u != "5d41402a-bc4b-3a76-b971-9d911017c592" { // MD5 of hello with the two fields set
		t.Error(u)
	}
}

// oneRow makes a stream of a table with a key and a column v, in an open transaction.
func oneRow(t *testing.T, spec string, nulls bool, fn func(*stream) error) error {
	t.Helper()
	table := newTestTable(7, "t", identityDefault, col("id", "int4 key"), col("v", spec))
	s := newTestStream(t, newRecorder(t), table)
	s.nulls = nulls
	if err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	return fn(s)
}

func wantStop(t *testing.T, err error, message, hint string) {
	t.Helper()
	var own *Error
	if !errors.As(err, &own) || !own.Fatal() {
		t.Fatalf("got %v, want a fatal error", err)
	}
	if !strings.Contains(err.Error(), message) || !strings.Contains(own.Hint(), hint) {
		t.Errorf("got %q with hint %q", err, own.Hint())
	}
}

func TestUnrepresentable(t *testing.T) {
	for spec, value := range map[string]string{
		"numeric(10,2)": "NaN", "numeric": "-Infinity", "date": "infinity", "interval": "infinity",
		"int4[]": "{{1,2},{3,4}}", "mood(a)[]": "{a,NULL}", "timestamp": "294276-12-31 23:59:59",
	} {
		t.Run(spec, func(t *testing.T) {
			insert := func(s *stream) error { return send(t.Context(), s, insertMessage(7, "1", value)) }
			wantStop(t, oneRow(t, spec, false, insert), "cannot be represented", "unrepresentable: null")
			wantStop(t, oneRow(t, spec+" null", false, insert), "cannot be represented", "unrepresentable: null")
			for _, spec := range []string{spec, spec + " null"} {
				var r *recorder
				err := oneRow(t, spec, true, func(s *stream) error {
					r = s.out.(*recorder)
					return insert(s)
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := r.lines[len(r.lines)-1]; !strings.Contains(got, `"v":null`) {
					t.Error(got)
				}
			}
		})
	}
}

func TestMessagesThatStop(t *testing.T) {
	table := ordersTable(identityDefault)
	open := [][]byte{table.message(), beginMessage(5, 0, 1)}
	for name, test := range map[string]struct {
		messages [][]byte
		message  string
	}{
		"unknown message":        {[][]byte{message('S', uint32(1))}, "is not known"},
		"unknown relation":       {[][]byte{beginMessage(5, 0, 1), insertMessage(8, "1")}, "never described"},
		"row outside":            {[][]byte{table.message(), insertMessage(7, row("1", "a")...)}, "outside of a transaction"},
		"truncate outside":       {[][]byte{table.message(), truncateMessage(7)}, "outside of a transaction"},
		"too few columns":        {append(open, insertMessage(7, "1", "a")), "2 columns, its table's description 6"},
		"bytes left over":        {append(open, append(insertMessage(7, row("1", "a")...), 0)), "left over"},
		"cut off":                {append(open, insertMessage(7, row("1", "a")...)[:30]), "ends too early"},
		"binary value":           {append(open, message('I', uint32(7), byte('N'), uint16(6), byte('b'))), "unknown kind"},
		"delete without old":     {append(open, message('D', uint32(7), byte('N'), tuple(row("1", "a")...))), "no old row"},
		"update without new":     {append(open, message('U', uint32(7), byte('K'), tuple(row("1", "a")...))), "no new row"},
		"begin in begin":         {append(open, beginMessage(6, 0, 1)), "inside another"},
		"commit without begin":   {[][]byte{commitMessage(5, 6)}, "commits"},
		"commit of another":      {append(open, commitMessage(6, 7)), "commits"},
		"begin cut off":          {[][]byte{beginMessage(5, 0, 1)[:9]}, "ends too early"},
		"relation cut off":       {[][]byte{table.message()[:20]}, "ends too early"},
		"truncate cut off":       {append(open, truncateMessage(7)[:8]), "ends too early"},
		"truncate of unknown":    {append(open, truncateMessage(8)), "never described"},
		"value of another type":  {append(open, insertMessage(7, row("one", "a")...)), `column "id" of table public.orders`},
		"unchanged key":          {append(open, updateMessage(7, 0, nil, row(unchangedValue, "a"))), "not in the log"},
		"number out of its type": {append(open, insertMessage(7, row("3000000000", "a")...)), "no value of the column's type"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStream(t, newRecorder(t), table)
			wantStop(t, send(t.Context(), s, test.messages...), test.message, "")
		})
	}
}

func TestEmptyTransactionsCostNothing(t *testing.T) {
	r := newRecorder(t)
	s := newTestStream(t, r)
	if err := send(t.Context(), s, beginMessage(5, 0, 1), commitMessage(5, 9)); err != nil {
		t.Fatal(err)
	}
	if len(r.lines) != 0 || s.pos != 9 || s.told != 0 {
		t.Errorf("lines %q, pos %d, told %d", r.lines, s.pos, s.told)
	}
}

func TestSameRelationKeepsItsPlan(t *testing.T) {
	table := ordersTable(identityDefault)
	r := newRecorder(t)
	s := newTestStream(t, r, table)
	messages := [][]byte{table.message(), beginMessage(5, 0, 1), insertMessage(7, row("1", "a")...), table.message(), insertMessage(7, row("2", "a")...)}
	if err := send(t.Context(), s, messages...); err != nil {
		t.Fatal(err)
	}
	if len(r.versions) != 1 {
		t.Fatalf("%d versions", len(r.versions))
	}
	changed := ordersTable(identityFull)
	if err := send(t.Context(), s, changed.message(), insertMessage(7, row("3", "a")...)); err != nil {
		t.Fatal(err)
	}
	if len(r.versions) != 2 || r.hashes[0] == r.hashes[1] {
		t.Errorf("%d versions, hashes %q", len(r.versions), r.hashes)
	}
}

// Two tables that swap names, as online migrations do it: a route holds until the next
// Table call for its name, so a plan must not outlive that.
func TestSwappedNames(t *testing.T) {
	columns := []testColumn{col("id", "int4 key")}
	a, b := newTestTable(1, "a", identityDefault, columns...), newTestTable(2, "a", identityDefault, columns...)
	r := newRecorder(t)
	s := newTestStream(t, r, a, b)
	if err := send(t.Context(), s, beginMessage(5, 0, 1), a.message(), insertMessage(1, "1"), b.message(), insertMessage(2, "2"),
		a.message(), insertMessage(1, "3"), insertMessage(1, "4")); err != nil {
		t.Fatal(err)
	}
	if len(r.versions) != 3 {
		t.Errorf("%d versions: %q", len(r.versions), r.lines)
	}
}

func TestEmitterErrorsAreReturnedAsTheyAre(t *testing.T) {
	table := ordersTable(identityDefault)
	r := newRecorder(t)
	s := newTestStream(t, r, table)
	boom := errors.New("boom")
	r.fail = boom
	for _, m := range [][][]byte{
		{table.message(), beginMessage(5, 0, 1), insertMessage(7, row("1", "a")...)},
	} {
		if err := send(t.Context(), s, m...); err != boom {
			t.Errorf("got %v", err)
		}
	}
	if err := s.message(t.Context(), 'd', keepaliveMessage(10, true)); err != nil {
		t.Errorf("keepalive inside of a transaction: %v", err)
	}
	s.open = false
	r.open = false
	if err := s.message(t.Context(), 'd', keepaliveMessage(10, true)); err != boom {
		t.Errorf("got %v", err)
	}
}

func TestDescribeErrorEndsTheRun(t *testing.T) {
	table := ordersTable(identityDefault)
	s := newTestStream(t, newRecorder(t), table)
	boom := errors.New("boom")
	s.describeTable = nil
	s.out = failingTable{Emitter: s.out, err: boom}
	err := send(t.Context(), s, table.message(), beginMessage(5, 0, 1), insertMessage(7, row("1", "a")...))
	if err != boom {
		t.Errorf("got %v", err)
	}
}

type failingTable struct {
	capture.Emitter
	err error
}

func (f failingTable) Table(context.Context, *capture.TableVersion) (*capture.Route, error) {
	return nil, f.err
}
