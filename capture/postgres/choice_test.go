package postgres

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// hidden is in every value that must not be seen.
const hidden = "canary"

const testKey = "0123456789abcdef0123456789abcdef"

// maskedTable has a column for each mask and what it may meet.
func maskedTable(identity byte) (*testTable, []Columns) {
	table := newTestTable(7, "people", identity,
		col("id", "int4 key"), col("email", "text key default canary"), col("plain", "int4"), col("ssn", "text null default canary"),
		col("phone", "text default canary"), col("born", "date"), col("feels", "mood(canary,ok) default canary"), col("name", "text null"),
		col("note", "varchar(20) null"), col("score", "int8 default 7"), col("tags", "text[] null"), col("doc", "jsonb"))
	return table, []Columns{
		{Table: "public.people", Exclude: []string{"ssn"}, Mask: map[string]Mask{
			"email": {Kind: HMAC, Key: testKey}, "phone": {Kind: Redact}, "born": {Kind: Redact}, "feels": {Kind: Redact}}},
		{Table: "public.*", Mask: map[string]Mask{
			"name": {Kind: Truncate, Length: 2}, "note": {Kind: Constant, Text: "x"}, "score": {Kind: Constant, Text: "42"},
			"tags": {Kind: HMAC, Key: testKey}, "doc": {Kind: HMAC, Key: testKey}, "phone": {Kind: Truncate, Length: 5}}},
	}
}

func person(id, email string) []string {
	return []string{id, email, "5", hidden, hidden, "1999-09-09", hidden, "ü€" + hidden, hidden, "99", "{" + hidden + "}", `{"a":"` + hidden + `"}`}
}

func TestMaskedRows(t *testing.T) {
	for _, identity := range []byte{identityDefault, identityFull} {
		table, columns := maskedTable(identity)
		r := newRecorder(t)
		r.onRaw = func(c *capture.Change) {
			for _, b := range [][]byte{c.Key, c.Value, c.NewKey, c.OldKey} {
				if bytes.Contains(b, []byte(hidden)) {
					t.Errorf("%c of identity %c shows %q", c.Op, identity, b)
				}
			}
		}
		s := newTestStream(t, r, table)
		s.src.cfg.Columns = columns
		toast := person("1", "a"+hidden)
		for _, i := range []int{3, 4, 7, 8, 10, 11} {
			toast[i] = unchangedValue
		}
		tag, old := byte('K'), []string{"1", "a" + hidden, nullValue, nullValue, nullValue, nullValue, nullValue, nullValue, nullValue, nullValue, nullValue, nullValue}
		if identity == identityFull {
			tag, old = 'O', person("1", "a"+hidden)
		}
		nulls := person("2", "b"+hidden)
		for _, i := range []int{3, 4, 5, 6, 7, 8, 10} {
			nulls[i] = nullValue
		}
		err := send(t.Context(), s, table.message(), beginMessage(5000, 1_600_000_000_000_000, 77), insertMessage(7, person("1", "a"+hidden)...),
			updateMessage(7, tag, old, toast), insertMessage(7, nulls...), updateMessage(7, tag, old, person("1", "c"+hidden)), deleteMessage(7, tag, old...))
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, []byte(testKey))
		mac.Write([]byte("a" + hidden))
		if want := fmt.Sprintf(`key={"email":"%x","id":1}`, mac.Sum(nil)); !strings.Contains(r.lines[2], want) {
			t.Errorf("the key is not %s: %s", want, r.lines[2])
		}
		golden(t, "rows-masked-"+string(identity)+".txt", strings.Join(r.lines, "\n")+"\n")
		d, err := schemas.Derive(r.versions[0], schemas.Naming{Prefix: "srv", Connector: connector})
		if err != nil || strings.Contains(d.ValueSchema+d.KeySchema, hidden) {
			t.Errorf("%v, the schema is %s", err, d.ValueSchema)
		}
	}
}

// Rows in which a masked column was null though it is NOT NULL make it nullable, as others.
func TestMaskedNull(t *testing.T) {
	table := newTestTable(7, "t", identityDefault, col("id", "int4 key"), col("v", "text"))
	r := newRecorder(t)
	s := newTestStream(t, r, table)
	s.src.cfg.Columns = []Columns{{Table: "*.t", Mask: map[string]Mask{"v": {Kind: Truncate, Length: 1}}}}
	if err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1), insertMessage(7, "1", "ab"), insertMessage(7, "2", nullValue)); err != nil {
		t.Fatal(err)
	}
	if len(r.versions) != 2 || !r.versions[1].Columns[1].Nullable || !strings.Contains(r.lines[len(r.lines)-1], `"v":null`) {
		t.Errorf("%q", r.lines)
	}
}

// What an UPDATE left alone is missed only where it would be written.
func TestPartOfAMaskedRow(t *testing.T) {
	table := newTestTable(7, "t", identityDefault, col("id", "int4 key"), col("out", "text"), col("red", "text"), col("v", "text"))
	var part []bool
	r := newRecorder(t)
	r.onRaw = func(c *capture.Change) { part = append(part, c.Part) }
	s := newTestStream(t, r, table)
	s.src.cfg.Columns = []Columns{{Table: "*.t", Exclude: []string{"out"}, Mask: map[string]Mask{"red": {Kind: Redact}, "v": {Kind: HMAC, Key: testKey}}}}
	if err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1), updateMessage(7, 0, nil, []string{"1", unchangedValue, unchangedValue, "x"}),
		updateMessage(7, 0, nil, []string{"1", unchangedValue, unchangedValue, unchangedValue})); err != nil {
		t.Fatal(err)
	}
	if len(part) != 2 || part[0] || !part[1] {
		t.Errorf("got %v", part)
	}
}

func TestMaskedRowsAllocateNothing(t *testing.T) {
	table := wideTable(identityFull)
	columns := Columns{Table: "*.*", Exclude: []string{table.columns[1].name}, Mask: map[string]Mask{}}
	masks := 0
	for i, c := range table.columns[2:] {
		m := []Mask{{Kind: HMAC, Key: testKey}, {Kind: Truncate, Length: 3}, {Kind: Redact}, {Kind: Constant, Text: "7"}}[i%4]
		if def, err := m.column(c.def, false); err == nil && def.Name != "" {
			columns.Mask[c.name] = m
			masks++
		}
	}
	if masks < 3 {
		t.Fatalf("only %d masks fit the table", masks)
	}
	masked, err := relationOf(t, table, []Columns{columns}).choice.apply(&table.table)
	if err != nil {
		t.Fatal(err)
	}
	a := newAppender(table)
	a.tables["wide"] = masked
	s := newTestStream(t, a, table)
	s.src.cfg.Columns = []Columns{columns}
	ctx := t.Context()
	if err := send(ctx, s, table.message(), beginMessage(5, 0, 1)); err != nil {
		t.Fatal(err)
	}
	for name, m := range changesOf(identityFull, "42") {
		data := logData(77, m)
		changes := a.changes
		n := testing.AllocsPerRun(100, func() {
			if err := s.message(ctx, 'd', data); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 || a.changes == changes {
			t.Errorf("%s: %v allocations a row, %d changes", name, n, a.changes-changes)
		}
	}
}

// Another choice is another version; what the log said stays the same.
func TestChoiceMakesAVersion(t *testing.T) {
	table, _ := maskedTable(identityDefault)
	mask := func(m Mask) []Columns { return []Columns{{Table: "public.people", Mask: map[string]Mask{"phone": m}}} }
	hashes, logs := map[string]string{}, map[string]bool{}
	for name, columns := range map[string][]Columns{
		"none": nil, "excluded": {{Table: "public.people", Exclude: []string{"phone"}}}, "another excluded": {{Table: "public.people", Exclude: []string{"note"}}},
		"redacted": mask(Mask{Kind: Redact}), "constant": mask(Mask{Kind: Constant, Text: "x"}), "another constant": mask(Mask{Kind: Constant, Text: "y"}),
		"truncated": mask(Mask{Kind: Truncate, Length: 1}), "truncated less": mask(Mask{Kind: Truncate, Length: 2}),
		"hmac": mask(Mask{Kind: HMAC, Key: testKey}), "hmac of another key": mask(Mask{Kind: HMAC, Key: testKey + "!"}),
	} {
		rel := relationOf(t, table, columns)
		if other, ok := hashes[rel.hash()]; ok {
			t.Errorf("%s is the version of %s", name, other)
		}
		hashes[rel.hash()], logs[rel.logHash()] = name, true
	}
	if len(logs) != 1 {
		t.Errorf("the choice is in what the log said")
	}
	keys := map[string]bool{}
	for _, columns := range [][]Columns{nil, mask(Mask{Kind: HMAC, Key: testKey})} { // no column of the key
		keys[relationOf(t, table, columns).keyHash()] = true
	}
	if len(keys) != 1 || !keys[""] {
		t.Errorf("masks of no key column: %v", keys)
	}
	for _, key := range []string{testKey, testKey + "!"} {
		keys[relationOf(t, table, []Columns{{Table: "public.people", Mask: map[string]Mask{"email": {Kind: HMAC, Key: key}}}}).keyHash()] = true
	}
	if len(keys) != 3 {
		t.Errorf("masks of a key column: %v", keys)
	}
	same := []Columns{{Table: "public.people", Exclude: []string{"phone"}, Mask: map[string]Mask{"note": {Kind: Redact}}}}
	twice := []Columns{{Table: "*.people", Mask: map[string]Mask{"note": {Kind: Redact}, "phone": {Kind: Redact}}}, {Table: "public.*", Exclude: []string{"phone"}}}
	if relationOf(t, table, same).hash() != relationOf(t, table, twice).hash() {
		t.Error("one choice written in two ways makes two versions")
	}
	other := []Columns{{Table: "public.orders", Exclude: []string{"phone"}}, {Table: "public.people", Include: []string{"id", "email", "plain", "ssn", "phone", "born", "feels", "name", "note", "score", "tags", "doc"}}}
	if hashes[relationOf(t, table, other).hash()] != "none" {
		t.Error("a choice that changes nothing makes a version")
	}
}

func relationOf(t *testing.T, table *testTable, columns []Columns) *relation {
	t.Helper()
	rel, err := parseRelation(table.message())
	if err != nil {
		t.Fatal(err)
	}
	rel.choice = (&Config{Columns: columns}).choose(rel)
	return rel
}

func TestChoicesThatCannotBe(t *testing.T) {
	table, _ := maskedTable(identityDefault)
	for name, test := range map[string]struct {
		columns Columns
		message string
	}{
		"key left out":        {Columns{Exclude: []string{"id"}}, `column "id" of table public.people is left out, and it is part of the key`},
		"key not included":    {Columns{Include: []string{"id", "plain"}}, `column "email" of table public.people is left out`},
		"key redacted":        {Columns{Mask: map[string]Mask{"email": {Kind: Redact}}}, "part of the key, and redact would make rows one"},
		"key truncated":       {Columns{Mask: map[string]Mask{"email": {Kind: Truncate, Length: 1}}}, "part of the key"},
		"key constant":        {Columns{Mask: map[string]Mask{"id": {Kind: Constant, Text: "1"}}}, "part of the key"},
		"truncated number":    {Columns{Mask: map[string]Mask{"plain": {Kind: Truncate, Length: 1}}}, "only text can be truncated"},
		"truncated enum":      {Columns{Mask: map[string]Mask{"feels": {Kind: Truncate, Length: 1}}}, "only text can be truncated"},
		"text for a number":   {Columns{Mask: map[string]Mask{"plain": {Kind: Constant, Text: "x"}}}, "the constant is no value"},
		"number out of range": {Columns{Mask: map[string]Mask{"plain": {Kind: Constant, Text: "3000000000"}}}, "the constant is no value"},
		"infinite date":       {Columns{Mask: map[string]Mask{"born": {Kind: Constant, Text: "infinity"}}}, "the constant is no value"},
		"no JSON":             {Columns{Mask: map[string]Mask{"doc": {Kind: Constant, Text: "x"}}}, "the constant is no value"},
	} {
		t.Run(name, func(t *testing.T) {
			test.columns.Table = "public.people"
			if err := test.columns.Validate(); err != nil {
				t.Fatal(err)
			}
			s := newTestStream(t, newRecorder(t), table)
			s.src.cfg.Columns = []Columns{test.columns}
			err := send(t.Context(), s, table.message(), beginMessage(1, 0, 1), insertMessage(7, person("1", "a")...))
			wantStop(t, err, test.message, "")
			if strings.Contains(err.Error(), hidden) {
				t.Error(err)
			}
		})
	}
}

func TestNamedColumns(t *testing.T) {
	table, _ := maskedTable(identityDefault)
	gone := []Columns{{Table: "public.people", Exclude: []string{"gone"}}}
	wantStop(t, relationOf(t, table, gone).checkNamed(map[string]catalogColumn{"phone": {}}), `table public.people has no column "gone"`, "renamed")
	for name, rel := range map[string]*relation{
		"not in the log": relationOf(t, table, gone),
		"by a pattern":   relationOf(t, table, []Columns{{Table: "public.peopl*", Exclude: []string{"gone"}}}),
		"dropped since":  relationOf(t, table, []Columns{{Table: "public.people", Exclude: []string{"phone"}}}),
		"of another":     relationOf(t, table, []Columns{{Table: "public.others", Exclude: []string{"gone"}}}),
	} {
		known := map[string]catalogColumn{}
		if name == "not in the log" {
			known["gone"] = catalogColumn{}
		}
		if err := rel.checkNamed(known); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateColumns(t *testing.T) {
	for name, test := range map[string]struct {
		columns Columns
		message string
	}{
		"no schema":         {Columns{Table: "people", Exclude: []string{"a"}}, "has no schema"},
		"nothing":           {Columns{Table: "public.people"}, "nothing is chosen"},
		"both":              {Columns{Table: "public.people", Include: []string{"a"}, Exclude: []string{"b"}}, "both include and exclude"},
		"no name":           {Columns{Table: "public.people", Exclude: []string{""}}, "no column's name"},
		"masked, excluded":  {Columns{Table: "public.people", Exclude: []string{"a"}, Mask: map[string]Mask{"a": {Kind: Redact}}}, "masked and left out"},
		"masked, not named": {Columns{Table: "public.people", Include: []string{"b"}, Mask: map[string]Mask{"a": {Kind: Redact}}}, "masked and left out"},
		"short key":         {Columns{Table: "public.people", Mask: map[string]Mask{"a": {Kind: HMAC, Key: "canary-key"}}}, "shorter than 16 bytes"},
		"no length":         {Columns{Table: "public.people", Mask: map[string]Mask{"a": {Kind: Truncate}}}, "truncated to 0"},
		"no kind":           {Columns{Table: "public.people", Mask: map[string]Mask{"a": {}}}, "unknown kind"},
	} {
		_, err := New(Config{URL: "postgres://u@h/db", Slot: "s", Publication: "p", Columns: []Columns{test.columns}})
		wantStop(t, err, test.message, "")
		if strings.Contains(err.Error()+capture.HintOf(err), hidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
