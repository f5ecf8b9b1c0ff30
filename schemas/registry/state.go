package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// state is what the log's records add up to. It is changed by apply alone.
type state struct {
	subjects map[string]*subject
	byID     map[int32]*schemaText
	byForm   map[string]*schemaText // plain Avro schemas by their canonical form
	config   map[string]settingValue
	mode     map[string]settingValue
	maxID    int32 // highest id that was ever given, as far as the log tells
	keptID   int32 // highest maxId of NOOP records
	conflict int   // records left out because their id stands for another schema

	// foreign holds, for records whose keys are written otherwise than ours (early
	// registries did), the keys as they stand in the log.
	foreign map[recordKey]map[string]bool
}

// subject is a name with versions. One without versions is not in the state.
type subject struct {
	name     string
	versions []*version // ascending
}

type version struct {
	subject string
	number  int
	deleted bool // softly
	text    *schemaText
}

// schemaText is a schema with its id. All of it but holders never changes.
type schemaText struct {
	id         int32
	schema     string
	form       string // canonical form; empty if this is not a plain Avro schema
	schemaType string // empty: AVRO
	md5        string
	references json.RawMessage
	metadata   json.RawMessage
	ruleSet    json.RawMessage
	holders    []*version // in the order of the log
}

func newState() *state {
	return &state{
		subjects: make(map[string]*subject),
		byID:     make(map[int32]*schemaText),
		byForm:   make(map[string]*schemaText),
		config:   make(map[string]settingValue),
		mode:     make(map[string]settingValue),
		foreign:  make(map[recordKey]map[string]bool),
	}
}

// apply makes one record of the log take effect.
func (st *state) apply(r *record) {
	st.noteKey(r)
	switch r.keyType {
	case keySchema:
		st.applySchema(r)
	case keyConfig:
		applySetting(st.config, r)
	case keyMode:
		applySetting(st.mode, r)
	case keyDeleteSubject:
		st.applyDelete(r)
	case keyClearSubject:
		st.applyClear(r)
	case keyNoop:
		st.keptID = max(st.keptID, r.maxID)
		st.maxID = max(st.maxID, r.maxID)
	}
}

func applySetting(m map[string]settingValue, r *record) {
	if r.tombstone {
		delete(m, r.subject)
		return
	}
	m[r.subject] = r.setting
}

// noteKey remembers keys that are not written as ours, for as long as they have a value.
func (st *state) noteKey(r *record) {
	if r.keyType == "" || r.key == string(r.bytes()) {
		return
	}
	keys := st.foreign[r.recordKey]
	switch {
	case !r.tombstone && keys == nil:
		st.foreign[r.recordKey] = map[string]bool{r.key: true}
	case !r.tombstone:
		keys[r.key] = true
	default:
		delete(keys, r.key)
	}
}

// entries returns what to append so that key has value, or none if value is nil, and so
// that no differently written key of the same record outlives it.
func (st *state) entries(k recordKey, value []byte) []Entry {
	var es []Entry
	for _, key := range slices.Sorted(maps.Keys(st.foreign[k])) {
		es = append(es, Entry{Key: []byte(key)})
	}
	return append(es, Entry{Key: k.bytes(), Value: value})
}

func (st *state) applySchema(r *record) {
	if r.tombstone {
		st.remove(r.subject, r.recordKey.version)
		return
	}
	text := st.byID[r.schema.ID]
	if text != nil && text.schema != r.schema.Schema {
		// Two registries that both believed to lead gave one id twice. The first stands:
		// so does Confluent's registry decide.
		st.conflict++
		return
	}
	if text == nil {
		text = newText(r.schema)
	}
	if v := st.version(r.subject, r.recordKey.version); v != nil && v.text == text {
		v.deleted = r.schema.Deleted
		return
	}
	st.remove(r.subject, r.recordKey.version)
	st.add(&version{subject: r.subject, number: r.recordKey.version, deleted: r.schema.Deleted, text: text})
}

func newText(v *schemaValue) *schemaText {
	t := &schemaText{id: v.ID, schema: v.Schema, md5: v.MD5,
		references: v.References, metadata: v.Metadata, ruleSet: v.RuleSet}
	if v.SchemaType != typeAvro {
		t.schemaType = v.SchemaType
	}
	if t.schemaType == "" && isEmpty(t.references) && isEmpty(t.metadata) && isEmpty(t.ruleSet) {
		t.form = canonicalForm(t.schema)
	}
	return t
}

// add puts a version that is not there into the state.
func (st *state) add(v *version) {
	s := st.subjects[v.subject]
	if s == nil {
		s = &subject{name: v.subject}
		st.subjects[v.subject] = s
	}
	i, _ := slices.BinarySearchFunc(s.versions, v.number, compareVersion)
	s.versions = slices.Insert(s.versions, i, v)
	t := v.text
	t.holders = append(t.holders, v)
	st.byID[t.id] = t
	if first := st.byForm[t.form]; t.form != "" && (first == nil || t.id < first.id) {
		st.byForm[t.form] = t
	}
	st.maxID = max(st.maxID, t.id)
}

// remove takes a version out of the state, if it is there, and its schema with the last
// version that holds it.
func (st *state) remove(name string, number int) {
	v := st.version(name, number)
	if v == nil {
		return
	}
	s := st.subjects[name]
	s.versions = slices.DeleteFunc(s.versions, func(w *version) bool { return w == v })
	if len(s.versions) == 0 {
		delete(st.subjects, name)
	}
	t := v.text
	t.holders = slices.DeleteFunc(t.holders, func(w *version) bool { return w == v })
	if len(t.holders) > 0 {
		return
	}
	delete(st.byID, t.id)
	if st.byForm[t.form] == t {
		delete(st.byForm, t.form)
		st.refill(t.form)
	}
}

// refill finds the schema with the lowest id among those of one form: a log may have more
// than one if a registry that wrote it compared schemas more narrowly.
func (st *state) refill(form string) {
	for _, t := range st.byID {
		if first := st.byForm[form]; t.form == form && (first == nil || t.id < first.id) {
			st.byForm[form] = t
		}
	}
}

func (st *state) applyDelete(r *record) {
	s := st.subjects[r.subject]
	if s == nil || r.tombstone {
		return
	}
	for _, v := range s.versions {
		if v.number <= r.version {
			v.deleted = true
		}
	}
}

func (st *state) applyClear(r *record) {
	if r.tombstone {
		return
	}
	for name, s := range st.subjects {
		if r.subject != "" && name != r.subject {
			continue
		}
		for _, v := range slices.Clone(s.versions) {
			if v.deleted {
				st.remove(name, v.number)
			}
		}
	}
}

func compareVersion(v *version, number int) int { return v.number - number }

// version returns a version, deleted or not; nil: there is none.
func (st *state) version(name string, number int) *version {
	s := st.subjects[name]
	if s == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.versions, number, compareVersion)
	if !ok {
		return nil
	}
	return s.versions[i]
}

// versions returns the versions of a subject, ascending: those not deleted, or all.
func (st *state) versions(name string, deleted bool) []*version {
	s := st.subjects[name]
	if s == nil {
		return nil
	}
	var vs []*version
	for _, v := range s.versions {
		if deleted || !v.deleted {
			vs = append(vs, v)
		}
	}
	return vs
}

// latest returns the highest version that is not deleted; nil: there is none.
func (st *state) latest(name string) *version {
	vs := st.versions(name, false)
	if len(vs) == 0 {
		return nil
	}
	return vs[len(vs)-1]
}

// find returns the highest version of a subject that holds a schema of this form.
func (st *state) find(name, form string, deleted bool) *version {
	for _, v := range slices.Backward(st.versions(name, deleted)) {
		if v.text.form == form {
			return v
		}
	}
	return nil
}

// names returns the names of the subjects that begin with prefix, sorted.
func (st *state) names(prefix string) []string {
	var names []string
	for name := range st.subjects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// level returns the compatibility level of a subject, or the global one for "". Set: it
// was set just there, and not taken from what it defaults to.
func (st *state) level(name string) (l Level, set bool) {
	if l := Level(st.config[name].text("compatibilityLevel")); l != "" {
		return l, true
	}
	if name != "" {
		l, _ = st.level("")
		return l, false
	}
	return Backward, false
}

// modeOf is like level.
func (st *state) modeOf(name string) (mode string, set bool) {
	if m := st.mode[name].text("mode"); m != "" {
		return m, true
	}
	if name != "" {
		mode, _ = st.modeOf("")
		return mode, false
	}
	return modeReadWrite, false
}

// referrers returns the versions whose schemas refer to a version.
func (st *state) referrers(name string, number int, deleted bool) []*version {
	var vs []*version
	for _, t := range st.byID {
		if !t.refersTo(name, number) {
			continue
		}
		for _, v := range t.holders {
			if deleted || !v.deleted {
				vs = append(vs, v)
			}
		}
	}
	return vs
}

func (t *schemaText) refersTo(name string, number int) bool {
	if isEmpty(t.references) {
		return false
	}
	var refs []struct {
		Subject string `json:"subject"`
		Version int    `json:"version"`
	}
	if json.Unmarshal(t.references, &refs) != nil {
		return false
	}
	for _, r := range refs {
		if r.Subject == name && r.Version == number {
			return true
		}
	}
	return false
}

// value returns the record's value for v.
func (v *version) value(deleted bool) []byte {
	t := v.text
	w := schemaValue{Subject: v.subject, Version: v.number, ID: t.id, MD5: t.md5, SchemaType: t.schemaType,
		References: t.references, Metadata: t.metadata, RuleSet: t.ruleSet, Schema: t.schema, Deleted: deleted}
	return w.bytes()
}

func (v *version) key() recordKey {
	return recordKey{keyType: keySchema, subject: v.subject, version: v.number}
}

// compactText takes the white space out of a schema. A text that is not JSON stays.
func compactText(schema string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(schema)) != nil {
		return schema
	}
	return b.String()
}

// canonicalForm renders a schema so that texts which differ in white space, in the order
// of members, or in writing {"type":"string"} for "string", come out alike: they are one
// schema and have one id. Everything else counts, as it does for Confluent's registry:
// documentation, defaults, properties.
func canonicalForm(schema string) string {
	d := json.NewDecoder(strings.NewReader(schema))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return schema
	}
	b, err := json.Marshal(plainTypes(v))
	if err != nil {
		return schema
	}
	return string(b)
}

// plainTypes replaces, wherever a schema may stand, {"type":X} by X.
func plainTypes(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = plainTypes(v[i])
		}
	case map[string]any:
		for _, name := range []string{"type", "items", "values", "fields"} {
			if w, ok := v[name]; ok {
				v[name] = plainTypes(w)
			}
		}
		if t, ok := v["type"].(string); ok && len(v) == 1 {
			return t
		}
	}
	return v
}
