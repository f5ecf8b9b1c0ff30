package registry

import (
	"encoding/json"
	"net/http"
	"slices"
)

// versionAnswer is a version of a subject as it is told.
type versionAnswer struct {
	Subject    string          `json:"subject"`
	ID         int32           `json:"id"`
	Version    int             `json:"version"`
	SchemaType string          `json:"schemaType,omitempty"`
	References json.RawMessage `json:"references,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	RuleSet    json.RawMessage `json:"ruleSet,omitempty"`
	Schema     string          `json:"schema"`
}

func (v *version) answer() versionAnswer {
	t := v.text
	return versionAnswer{Subject: v.subject, ID: t.id, Version: v.number, SchemaType: t.schemaType,
		References: t.references, Metadata: t.metadata, RuleSet: t.ruleSet, Schema: t.schema}
}

func subjectNotFound(name string) error {
	return faultf(codeSubjectNotFound, "there is no subject %.200q", name)
}

// listSubjects answers GET /subjects.
func (s *Server) listSubjects(r *http.Request) (any, error) {
	deleted, only := flag(r, "deleted"), flag(r, "deletedOnly")
	var names []string
	err := s.read(func(st *state) error {
		for _, name := range st.names(prefixOf(r)) {
			live := st.latest(name) != nil
			if only && !live || !only && (live || deleted) {
				names = append(names, name)
			}
		}
		return nil
	})
	return page(r, names), err
}

// lookup answers POST /subjects/{subject}.
func (s *Server) lookup(r *http.Request) (any, error) {
	q, err := readSchema(r)
	if err != nil {
		return nil, err
	}
	name, deleted := subjectOf(r), flag(r, "deleted")
	var answer versionAnswer
	err = s.read(func(st *state) error {
		v := st.find(name, q.form, deleted)
		switch {
		case v != nil:
			answer = v.answer()
			return nil
		case len(st.versions(name, deleted)) == 0:
			return subjectNotFound(name)
		}
		return faultf(codeSchemaNotFound, "subject %.200q has no such schema", name)
	})
	return answer, err
}

// listVersions answers GET /subjects/{subject}/versions.
func (s *Server) listVersions(r *http.Request) (any, error) {
	name := subjectOf(r)
	deleted, only, negative := flag(r, "deleted"), flag(r, "deletedOnly"), flag(r, "deletedAsNegative")
	var numbers []int
	err := s.read(func(st *state) error {
		if len(st.versions(name, deleted || only || negative)) == 0 {
			return subjectNotFound(name)
		}
		for _, v := range st.versions(name, deleted || only || negative) {
			switch {
			case negative && v.deleted:
				numbers = append(numbers, -v.number)
			case negative || !only || v.deleted:
				numbers = append(numbers, v.number)
			}
		}
		return nil
	})
	return page(r, numbers), err
}

// pick returns the version that the path names.
func (st *state) pick(name string, number int, deleted bool) (*version, error) {
	v := st.version(name, number)
	if number == latest {
		v = st.latest(name)
	}
	switch {
	case v != nil && (deleted || !v.deleted):
		return v, nil
	case len(st.versions(name, deleted)) == 0:
		return nil, subjectNotFound(name)
	}
	return nil, faultf(codeVersionNotFound, "subject %.200q has no version %d", name, number)
}

// getVersion answers GET /subjects/{subject}/versions/{version}.
func (s *Server) getVersion(r *http.Request) (any, error) {
	return s.versionAnswer(r)
}

// bareVersion answers GET /subjects/{subject}/versions/{version}/schema.
func (s *Server) bareVersion(r *http.Request) (any, error) {
	a, err := s.versionAnswer(r)
	return bareText(a.Schema), err
}

func (s *Server) versionAnswer(r *http.Request) (answer versionAnswer, err error) {
	number, err := versionOf(r)
	if err != nil {
		return answer, err
	}
	err = s.read(func(st *state) error {
		v, err := st.pick(subjectOf(r), number, flag(r, "deleted"))
		if err == nil {
			answer = v.answer()
		}
		return err
	})
	return answer, err
}

// referencedBy answers GET /subjects/{subject}/versions/{version}/referencedby.
func (s *Server) referencedBy(r *http.Request) (any, error) {
	number, err := versionOf(r)
	if err != nil {
		return nil, err
	}
	var ids []int32
	err = s.read(func(st *state) error {
		v, err := st.pick(subjectOf(r), number, true)
		if err != nil {
			return err
		}
		for _, w := range st.referrers(v.subject, v.number, flag(r, "deleted")) {
			ids = append(ids, w.text.id)
		}
		return nil
	})
	slices.Sort(ids)
	return page(r, slices.Compact(ids)), err
}

// deleteSubject answers DELETE /subjects/{subject}: softly, or for good what was deleted
// softly before. It tells the versions.
func (s *Server) deleteSubject(r *http.Request) (any, error) {
	name, permanent := subjectOf(r), flag(r, "permanent")
	var numbers []int
	err := s.write(r.Context(), func(st *state) ([]Entry, error) {
		vs, err := st.deletable(name, permanent)
		if err != nil {
			return nil, err
		}
		for _, v := range vs {
			numbers = append(numbers, v.number)
		}
		if permanent {
			return st.erasure(name, vs), nil
		}
		k := recordKey{keyType: keyDeleteSubject, subject: name}
		return st.entries(k, deleteValue{Version: numbers[len(numbers)-1]}.bytes(name)), nil
	})
	return numbers, err
}

// deletable returns the versions of a subject that a deletion takes, at least one.
func (st *state) deletable(name string, permanent bool) ([]*version, error) {
	vs := st.versions(name, permanent)
	switch {
	case len(st.versions(name, true)) == 0:
		return nil, subjectNotFound(name)
	case len(vs) == 0:
		return nil, faultf(codeSubjectSoftDeleted, "subject %q is deleted softly; permanent=true deletes it for good", name)
	}
	if err := st.writable(name); err != nil {
		return nil, err
	}
	for _, v := range vs {
		if err := st.unreferenced(v, name, permanent); err != nil {
			return nil, err
		}
		if permanent && !v.deleted {
			return nil, faultf(codeSubjectNotSoftDeleted, "subject %q must be deleted softly before it is deleted for good", name)
		}
	}
	return vs, nil
}

// writable refuses to delete where nothing may be written.
func (st *state) writable(name string) error {
	switch mode, _ := st.modeOf(name); mode {
	case modeReadWrite, modeImport, modeForward:
		return nil
	default:
		return faultf(codeNotPermitted, "subject %q is in mode %s", name, mode)
	}
}

// unreferenced refuses to delete a version that schemas of other subjects than except
// refer to.
func (st *state) unreferenced(v *version, except string, permanent bool) error {
	for _, w := range st.referrers(v.subject, v.number, permanent) {
		if w.subject != except {
			return faultf(codeReferenced, "version %d of subject %q is referred to by version %d of %q", v.number, v.subject, w.number, w.subject)
		}
	}
	return nil
}

// erasure returns what deletes versions of a subject for good, the last one first, and
// with the last of the subject also its level and mode.
func (st *state) erasure(name string, vs []*version) []Entry {
	es := st.keepMaxID(vs)
	for _, v := range slices.Backward(vs) {
		es = append(es, st.entries(v.key(), nil)...)
	}
	if len(vs) < len(st.versions(name, true)) {
		return es
	}
	if _, ok := st.mode[name]; ok {
		es = append(es, st.entries(recordKey{keyType: keyMode, subject: name}, nil)...)
	}
	if _, ok := st.config[name]; ok {
		es = append(es, st.entries(recordKey{keyType: keyConfig, subject: name}, nil)...)
	}
	return es
}

// keepMaxID returns what keeps the highest id known when the versions that have it are
// erased, so that it is never given again.
func (st *state) keepMaxID(vs []*version) []Entry {
	if st.keptID >= st.maxID {
		return nil
	}
	if t := st.byID[st.maxID]; t != nil {
		for _, v := range t.holders {
			if !slices.Contains(vs, v) {
				return nil
			}
		}
	}
	return st.entries(recordKey{keyType: keyNoop}, noopValue{MaxID: st.maxID}.bytes())
}

// deleteVersion answers DELETE /subjects/{subject}/versions/{version}.
func (s *Server) deleteVersion(r *http.Request) (any, error) {
	number, err := versionOf(r)
	if err != nil {
		return nil, err
	}
	name, permanent := subjectOf(r), flag(r, "permanent")
	err = s.write(r.Context(), func(st *state) ([]Entry, error) {
		v, err := st.deletableVersion(name, number, permanent)
		if err != nil {
			return nil, err
		}
		number = v.number
		if permanent {
			return st.erasure(name, []*version{v}), nil
		}
		return st.entries(v.key(), v.value(true)), nil
	})
	return number, err
}

func (st *state) deletableVersion(name string, number int, permanent bool) (*version, error) {
	v, err := st.pick(name, number, true)
	switch {
	case err != nil:
		return nil, err
	case v.deleted && !permanent:
		return nil, faultf(codeVersionSoftDeleted, "version %d of subject %q is deleted softly; permanent=true deletes it for good", v.number, name)
	}
	if err := st.writable(name); err != nil {
		return nil, err
	}
	if err := st.unreferenced(v, "", permanent); err != nil {
		return nil, err
	}
	if permanent && !v.deleted {
		return nil, faultf(codeVersionNotSoftDeleted, "version %d of subject %q must be deleted softly before it is deleted for good", v.number, name)
	}
	return v, nil
}
