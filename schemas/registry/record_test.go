package registry

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

// TestKeys holds the keys byte for byte: one that differs is another key for compaction,
// and for Confluent's registry.
func TestKeys(t *testing.T) {
	for _, c := range []struct {
		key  recordKey
		want string
	}{
		{recordKey{keySchema, "s", 1}, `{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`},
		{recordKey{keySchema, "a/\"b\\\u2028<é>&'", 12}, "{\"keytype\":\"SCHEMA\",\"subject\":\"a/\\\"b\\\\\u2028<é>&'\",\"version\":12,\"magic\":1}"},
		{recordKey{keyConfig, "s", 0}, `{"keytype":"CONFIG","subject":"s","magic":0}`},
		{recordKey{keyConfig, "", 0}, `{"keytype":"CONFIG","magic":0}`},
		{recordKey{keyMode, "s", 0}, `{"keytype":"MODE","subject":"s","magic":0}`},
		{recordKey{keyMode, "", 0}, `{"keytype":"MODE","magic":0}`},
		{recordKey{keyDeleteSubject, "s", 0}, `{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}`},
		{recordKey{keyClearSubject, "s", 0}, `{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}`},
		{recordKey{keyNoop, "", 0}, `{"keytype":"NOOP","magic":0}`},
	} {
		if got := string(c.key.bytes()); got != c.want {
			t.Errorf("key\n got %s\nwant %s", got, c.want)
		}
		r, err := parseRecord(0, Entry{Key: []byte(c.want)})
		if err != nil || r.recordKey != c.key || !r.tombstone {
			t.Errorf("read %s: %+v, %v", c.want, r, err)
		}
	}
	if got, want := string(appendString(nil, "\b\f\n\r\t\x01\x1f\x7f")), `"\b\f\n\r\t\u0001\u001F`+"\x7f\""; got != want {
		t.Errorf("string %s, want %s", got, want)
	}
}

func TestValues(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, c := range []struct{ got, want string }{
		{string((&schemaValue{Subject: "s", Version: 2, ID: 7, Schema: `"int"`}).bytes()),
			`{"subject":"s","version":2,"id":7,"schema":"\"int\"","deleted":false}`},
		{string((&schemaValue{Subject: "s", Version: 2, ID: 7, MD5: "bWQ1", SchemaType: "JSON", References: raw(`[{"name":"n"}]`),
			Metadata: raw(`{"a":1}`), RuleSet: raw(`{"b":2}`), Schema: "{}", Deleted: true}).bytes()),
			`{"subject":"s","version":2,"id":7,"md5":"bWQ1","schemaType":"JSON","references":[{"name":"n"}],"metadata":{"a":1},"ruleSet":{"b":2},"schema":"{}","deleted":true}`},
		{string(settingValue(nil).with("compatibilityLevel", "FULL").bytes("s")), `{"subject":"s","compatibilityLevel":"FULL"}`},
		{string(settingValue{"alias": raw(`"x"`)}.with("mode", "IMPORT").bytes("")), `{"alias":"x","mode":"IMPORT"}`},
		{string(deleteValue{3}.bytes("s")), `{"subject":"s","version":3}`},
		{string(noopValue{3}.bytes()), `{"maxId":3}`},
	} {
		if c.got != c.want {
			t.Errorf("value\n got %s\nwant %s", c.got, c.want)
		}
	}
}

// seeds are records as Confluent's registry writes them, and others that a log may hold.
var seeds = [][2]string{
	{`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`, `{"subject":"s","version":1,"id":1,"schema":"\"string\"","deleted":false}`},
	{`{"keytype":"SCHEMA","subject":"s","version":2,"magic":1}`, `{"subject":"s","version":2,"id":2,"md5":"x","schemaType":"AVRO","references":[],"metadata":null,"schema":"\"int\"","deleted":true,"offset":4,"ts":5}`},
	{`{"keytype":"SCHEMA","subject":"s","version":1,"magic":0}`, ``},
	{`{"magic":0,"keytype":"SCHEMA","version":3,"subject":"s"}`, `{"subject":"s","version":3,"id":3,"schema":"\"long\""}`},
	{`{"keytype":"SCHEMA","subject":":.ctx:s","version":1,"magic":1}`, `{"subject":":.ctx:s","version":1,"id":1,"schema":"\"bytes\"","deleted":false}`},
	{`{"keytype":"SCHEMA","subject":"p","version":1,"magic":1}`, `{"subject":"p","version":1,"id":5,"schemaType":"PROTOBUF","references":[{"name":"a","subject":"s","version":1}],"schema":"syntax = \"proto3\";","deleted":false}`},
	{`{"keytype":"CONFIG","subject":null,"magic":0}`, `{"compatibilityLevel":"FULL","normalize":true}`},
	{`{"keytype":"CONFIG","subject":"s","magic":0}`, `{"subject":"s","compatibilityLevel":"NONE"}`},
	{`{"keytype":"MODE","magic":0}`, `{"mode":"READONLY_OVERRIDE"}`},
	{`{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}`, `{"subject":"s","version":2}`},
	{`{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}`, `{"subject":"s"}`},
	{`{"keytype":"NOOP","magic":0}`, ``},
	{`{"keytype":"NOOP","magic":0}`, `{"maxId":9}`},
	{`{"keytype":"NOOP","magic":0}`, `text`},
	{`{"keytype":"CONTEXT","tenant":"t","context":"c","magic":0}`, `{"tenant":"t"}`},
	{`{"keytype":"ASSOC","x":1}`, `{"y":2}`},
	{`{"keytype":"LATER","subject":7}`, `z`},
}

func seed(i int) Entry {
	e := Entry{Key: []byte(seeds[i][0])}
	if seeds[i][1] != "" {
		e.Value = []byte(seeds[i][1])
	}
	return e
}

func TestForeignRecords(t *testing.T) {
	st := newState()
	for i := range seeds {
		r, err := parseRecord(int64(i), seed(i))
		if i == len(seeds)-1 { // its subject is none
			if err == nil {
				t.Error("took a key whose subject is a number")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		st.apply(r)
		check(t, st)
	}
	// The tombstone took version 1, DELETE_SUBJECT version 2, CLEAR_SUBJECT both it and
	// what the first had left.
	if got := st.names(""); !slices.Equal(got, []string{"p", "s"}) || len(st.versions("s", true)) != 1 {
		t.Errorf("subjects %v, versions of s %d", got, len(st.versions("s", true)))
	}
	if st.maxID != 9 || st.byID[5] == nil || st.byID[3] == nil || st.byID[2] != nil {
		t.Errorf("ids: max %d, %v", st.maxID, slices.Sorted(maps.Keys(st.byID)))
	}
	if l, set := st.level("other"); l != Full || set {
		t.Errorf("level %s", l)
	}
	if st.writable("s") == nil {
		t.Error("a subject in a mode that is not known is written to")
	}
	// What was written under another key is taken away under that key too.
	es := st.entries(recordKey{keySchema, "s", 3}, nil)
	if len(es) != 2 || string(es[0].Key) != seeds[3][0] || es[0].Value != nil {
		t.Errorf("entries for an early key: %q", es)
	}
}

// TestOneSchemaTwoIDs: a registry that compared texts gave two ids to what is one schema
// for us. The lower one is found, and the other once the lower is gone.
func TestOneSchemaTwoIDs(t *testing.T) {
	st := newState()
	put := func(subject, id, schema string) {
		e := Entry{Key: recordKey{keySchema, subject, 1}.bytes()}
		if schema != "" {
			e.Value = []byte(`{"id":` + id + `,"schema":` + schema + `}`)
		}
		r, err := parseRecord(0, e)
		if err != nil {
			t.Fatal(err)
		}
		st.apply(r)
		check(t, st)
	}
	put("b", "9", `"{\"type\":\"int\"}"`)
	put("a", "8", `"\"int\""`)
	form := canonicalForm(`"int"`)
	if got := st.byForm[form]; got == nil || got.id != 8 {
		t.Errorf("found %+v, want id 8", got)
	}
	put("a", "", "")
	if got := st.byForm[form]; got == nil || got.id != 9 {
		t.Errorf("found %+v, want id 9", got)
	}
}

func TestDamagedRecords(t *testing.T) {
	for _, e := range []Entry{
		{Key: nil, Value: []byte("{}")},
		{Key: []byte(`{}`)},
		{Key: []byte(`null`)},
		{Key: []byte(`{"keytype":"SCHEMA","subject":"s","magic":1}`)},
		{Key: []byte(`{"keytype":"SCHEMA","subject":"s","version":0,"magic":1}`)},
		{Key: []byte(`{"keytype":"SCHEMA","subject":"s","version":2147483648,"magic":1}`)},
		{Key: []byte(seeds[0][0]), Value: []byte(`{`)},
		{Key: []byte(seeds[0][0]), Value: []byte(``)},
		{Key: []byte(seeds[0][0]), Value: []byte(`{"id":-1,"schema":"x"}`)},
		{Key: []byte(seeds[0][0]), Value: []byte(`{"id":1}`)},
		{Key: []byte(seeds[0][0]), Value: []byte(`{"id":4294967296,"schema":"x"}`)},
		{Key: []byte(seeds[7][0]), Value: []byte(`[]`)},
		{Key: []byte(seeds[9][0]), Value: []byte(`{"version":"x"}`)},
	} {
		if r, err := parseRecord(3, e); err == nil {
			t.Errorf("took %q = %q as %+v", e.Key, e.Value, r)
		}
	}
}

// check holds what is always true of a state.
func check(t *testing.T, st *state) {
	t.Helper()
	count := 0
	for name, s := range st.subjects {
		if len(s.versions) == 0 || s.name != name {
			t.Fatalf("subject %q: %+v", name, s)
		}
		for i, v := range s.versions {
			if i > 0 && s.versions[i-1].number >= v.number {
				t.Fatalf("versions of %q do not ascend", name)
			}
			if v.subject != name || st.byID[v.text.id] != v.text || !slices.Contains(v.text.holders, v) {
				t.Fatalf("version %d of %q and its schema do not know each other", v.number, name)
			}
			count++
		}
	}
	for id, text := range st.byID {
		if text.id != id || id > st.maxID || len(text.holders) == 0 {
			t.Fatalf("schema %d: %+v, max %d", id, text, st.maxID)
		}
		count -= len(text.holders)
		if first := st.byForm[text.form]; text.form != "" && (first == nil || first.id > id) {
			t.Fatalf("schema %d cannot be found", id)
		}
	}
	if count != 0 {
		t.Fatalf("versions less holders: %d", count)
	}
	for form, text := range st.byForm {
		if text.form != form || st.byID[text.id] != text {
			t.Fatalf("schema %d is found, but gone", text.id)
		}
	}
}

// FuzzRecord reads records that came from anywhere, on top of a state that has something in
// it. Nothing may panic or leave the state inconsistent, and what is read can be written.
func FuzzRecord(f *testing.F) {
	for i := range seeds {
		f.Add([]byte(seeds[i][0]), []byte(seeds[i][1]))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		st := newState()
		for _, i := range []int{0, 1, 3, 5, 7} {
			r, err := parseRecord(int64(i), seed(i))
			if err != nil {
				t.Fatal(err)
			}
			st.apply(r)
		}
		for _, v := range [][]byte{value, nil} {
			r, err := parseRecord(7, Entry{Key: key, Value: v})
			if err != nil {
				return
			}
			st.apply(r)
			check(t, st)
			if r.keyType == "" {
				continue
			}
			if printable(r.subject) {
				again, err := parseRecord(8, Entry{Key: r.bytes()})
				if err != nil || again.recordKey != r.recordKey {
					t.Fatalf("key %q written as %q reads as %+v, %v", key, r.bytes(), again, err)
				}
			}
			if r.schema != nil {
				again, err := parseRecord(8, Entry{Key: key, Value: r.schema.bytes()})
				if err != nil || again.schema.ID != r.schema.ID || again.schema.Schema != r.schema.Schema || again.schema.Deleted != r.schema.Deleted {
					t.Fatalf("value %q written as %q: %v", value, r.schema.bytes(), err)
				}
			}
			if k := r.recordKey; st.foreign[k] != nil && v == nil && st.foreign[k][string(key)] {
				t.Fatalf("key %q is remembered after its tombstone", key)
			}
		}
	})
}

func TestCanonicalForm(t *testing.T) {
	same := [][]string{
		{`"int"`, ` { "type" : "int" } `, `{"type":{"type":"int"}}`},
		{`["null","int"]`, `[{"type":"null"}, {"type":"int"}]`},
		{`{"type":"array","items":"int"}`, `{"items":{"type":"int"},"type":"array"}`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`, `{"name":"R","fields":[{"type":{"type":"int"},"name":"a"}],"type":"record"}`},
		{`{"type":"int","connect.type":"int16"}`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":{"type":"int"}}]}`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":1}]}`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":1.0}]}`},
		{`not JSON`}, {`"int" "int"`},
	}
	forms := make(map[string]int)
	for i, texts := range same {
		for _, text := range texts {
			form := canonicalForm(text)
			if j, ok := forms[form]; ok && j != i {
				t.Errorf("%s has the form of %s", text, same[j][0])
			}
			if forms[form] = i; form != canonicalForm(texts[0]) {
				t.Errorf("%s: form %s differs from that of %s", text, form, texts[0])
			}
		}
	}
}
