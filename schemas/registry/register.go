package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tailrace/tailrace/schemas"
)

// schemaRequest is the body of a registration, a look-up or a compatibility check.
type schemaRequest struct {
	Schema     string          `json:"schema"`
	SchemaType string          `json:"schemaType"` // absent: AVRO
	References json.RawMessage `json:"references"`
	Metadata   json.RawMessage `json:"metadata"`
	RuleSet    json.RawMessage `json:"ruleSet"`
	ID         int32           `json:"id"`      // in IMPORT mode
	Version    int             `json:"version"` // -1 or absent: the next one

	form string
}

// maxSchema is how many bytes of text a schema may have: what schemas.CompileSchema takes.
const maxSchema = 1 << 20

// readSchema reads and checks the body: that it is a schema, of a kind that is served.
func readSchema(r *http.Request) (*schemaRequest, error) {
	q := new(schemaRequest)
	if err := decodeBody(r, q); err != nil {
		return nil, err
	}
	switch {
	case q.SchemaType != "" && !strings.EqualFold(q.SchemaType, typeAvro):
		return nil, faultf(codeInvalidSchema, "schema type %.32q is not supported; this registry keeps AVRO", q.SchemaType)
	case !isEmpty(q.References):
		return nil, faultf(codeInvalidSchema, "schema references are not supported; register one schema that holds all its types")
	case !isEmpty(q.Metadata):
		return nil, faultf(codeInvalidSchema, "schema metadata are not supported")
	case !isEmpty(q.RuleSet):
		return nil, faultf(codeInvalidSchema, "rule sets are not supported")
	case strings.TrimSpace(q.Schema) == "":
		return nil, faultf(codeInvalidSchema, "the request holds no schema")
	case len(q.Schema) > maxSchema:
		return nil, faultf(codeSchemaTooLarge, "the schema is larger than %d bytes", maxSchema)
	}
	if _, err := schemas.CompileSchema(q.Schema); err != nil {
		return nil, faultf(codeInvalidSchema, "not a valid Avro schema: %s", clip(err.Error(), maxErrorMessage))
	}
	q.Schema = compactText(q.Schema)
	q.form = canonicalForm(q.Schema)
	return q, nil
}

// register answers POST /subjects/{subject}/versions. What is registered already is
// answered from the state, whatever the mode and even when the log cannot be written: a
// writer of known schemas must be able to start.
func (s *Server) register(r *http.Request) (any, error) {
	name, err := newSubject(r)
	if err != nil {
		return nil, err
	}
	q, err := readSchema(r)
	if err != nil {
		return nil, err
	}
	var id int32
	known := func(st *state) bool {
		v := st.find(name, q.form, false)
		if v == nil || q.ID > 0 && q.ID != v.text.id || q.Version > 0 && q.Version != v.number {
			return false
		}
		id = v.text.id
		return true
	}
	found := false
	err = s.read(func(st *state) error { found = known(st); return nil })
	if err == nil && !found {
		err = s.write(r.Context(), func(st *state) (es []Entry, err error) {
			if known(st) { // since it was looked for
				return nil, nil
			}
			id, es, err = st.registration(name, q)
			return es, err
		})
	}
	return map[string]int32{"id": id}, err
}

// registration says which id a schema gets that its subject does not hold, and what is to
// be appended for it; or why it is refused.
func (st *state) registration(name string, q *schemaRequest) (int32, []Entry, error) {
	mode, _ := st.modeOf(name)
	importing := mode == modeImport || mode == modeForward
	switch {
	case q.ID > 0 && !importing:
		return 0, nil, faultf(codeNotPermitted, "an id can be given in mode IMPORT only; subject %q is in mode %s", name, mode)
	case q.ID <= 0 && mode != modeReadWrite:
		return 0, nil, faultf(codeNotPermitted, "subject %q is in mode %s, in which schemas without an id are not registered", name, mode)
	}
	id, err := st.idFor(q)
	if err != nil {
		return 0, nil, err
	}
	number, err := st.numberFor(name, q, importing)
	if err != nil {
		return 0, nil, err
	}
	if !importing {
		if err := st.checkLevel(name, q.Schema); err != nil {
			return 0, nil, err
		}
	}
	es := st.replaced(name, id, number)
	v := schemaValue{Subject: name, Version: number, ID: id, Schema: st.textFor(id, q.Schema)}
	k := recordKey{keyType: keySchema, subject: name, version: number}
	return id, append(es, st.entries(k, v.bytes())...), nil
}

// idFor returns the id that is asked for, the one that the schema has already, or the next.
func (st *state) idFor(q *schemaRequest) (int32, error) {
	if q.ID > 0 {
		if t := st.byID[q.ID]; t != nil && t.form != q.form {
			return 0, faultf(codeNotPermitted, "id %d stands for another schema", q.ID)
		}
		return q.ID, nil
	}
	if t := st.byForm[q.form]; t != nil {
		return t.id, nil
	}
	if st.maxID == maxInt32 {
		return 0, fmt.Errorf("give a new schema an id: all are used up")
	}
	return st.maxID + 1, nil
}

// textFor returns the text under which a schema is kept: an id has one.
func (st *state) textFor(id int32, text string) string {
	if t := st.byID[id]; t != nil {
		return t.schema
	}
	return text
}

// numberFor returns the version's number: one above all that there are, deleted ones too,
// or in mode IMPORT a free one that was asked for.
func (st *state) numberFor(name string, q *schemaRequest, importing bool) (int, error) {
	next := 1
	if vs := st.versions(name, true); len(vs) > 0 {
		next = vs[len(vs)-1].number + 1
	}
	switch {
	case q.Version <= 0 || q.Version == next:
		return next, nil
	case !importing:
		return 0, faultf(codeInvalidSchema, "version %d is not the next one of subject %q, which is %d", q.Version, name, next)
	case q.Version > maxInt32 || st.version(name, q.Version) != nil:
		return 0, faultf(codeNotPermitted, "version %d of subject %q is taken", q.Version, name)
	}
	return q.Version, nil
}

// replaced returns what takes softly deleted versions with this id out of the log: the new
// version stands for them.
func (st *state) replaced(name string, id int32, number int) []Entry {
	var es []Entry
	for _, v := range st.versions(name, true) {
		if v.deleted && v.text.id == id && v.number < number && len(st.referrers(name, v.number, true)) == 0 {
			es = append(es, st.entries(v.key(), nil)...)
		}
	}
	return es
}

// checkLevel says whether the subject's level lets a schema follow its versions.
func (st *state) checkLevel(name, schema string) error {
	reasons, err := st.incompatibilities(name, schema, st.versions(name, false))
	if err != nil || len(reasons) == 0 {
		return err
	}
	return faultf(codeIncompatible, "the schema is incompatible with an earlier one of subject %q: %s",
		name, clip(strings.Join(reasons, "; "), maxErrorMessage))
}

// incompatibilities compares a schema with versions of a subject, ascending, as its level
// asks: with the last, or transitively with all.
func (st *state) incompatibilities(name, schema string, vs []*version) ([]string, error) {
	level, _ := st.level(name)
	rule, ok := levelRules[level]
	switch {
	case !ok:
		return nil, faultf(codeInvalidLevel, "compatibility level %.64q of subject %q is not known here", level, name)
	case level == None:
		return nil, nil
	case !rule.transitive && len(vs) > 1:
		vs = vs[len(vs)-1:]
	}
	var reasons []string
	for _, v := range slices.Backward(vs) {
		for _, reason := range rule.compare(schema, v.text) {
			reasons = append(reasons, fmt.Sprintf("version %d: %s", v.number, reason))
		}
	}
	return reasons, nil
}

// checkAll answers POST /compatibility/subjects/{subject}/versions: what a registration
// would say.
func (s *Server) checkAll(r *http.Request) (any, error) {
	return s.check(r, func(st *state, name string) ([]*version, error) {
		return st.versions(name, false), nil
	})
}

// checkOne answers POST /compatibility/subjects/{subject}/versions/{version}.
func (s *Server) checkOne(r *http.Request) (any, error) {
	number, err := versionOf(r)
	if err != nil {
		return nil, err
	}
	return s.check(r, func(st *state, name string) ([]*version, error) {
		v := st.version(name, number)
		if number == latest {
			v = st.latest(name)
		}
		switch {
		case v != nil && !v.deleted:
			return []*version{v}, nil
		case number == latest: // nothing to be incompatible with
			return nil, nil
		}
		return nil, faultf(codeVersionNotFound, "subject %.200q has no version %d", name, number)
	})
}

func (s *Server) check(r *http.Request, with func(*state, string) ([]*version, error)) (any, error) {
	verbose := flag(r, "verbose")
	answer := struct {
		Compatible bool     `json:"is_compatible"`
		Messages   []string `json:"messages,omitempty"`
	}{}
	q, err := readSchema(r)
	if err != nil {
		return nil, err
	}
	name := subjectOf(r)
	err = s.read(func(st *state) error {
		vs, err := with(st, name)
		if err == nil {
			answer.Messages, err = st.incompatibilities(name, q.Schema, vs)
		}
		return err
	})
	answer.Compatible = len(answer.Messages) == 0
	if !verbose {
		answer.Messages = nil
	}
	return answer, err
}
