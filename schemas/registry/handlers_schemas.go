package registry

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

// root answers / : there is a registry here.
func (s *Server) root(*http.Request) (any, error) { return struct{}{}, nil }

// contexts answers GET /contexts: the default one.
func (s *Server) contexts(r *http.Request) (any, error) { return page(r, []string{"."}), nil }

func (s *Server) metadataID(*http.Request) (any, error) {
	return map[string]any{
		"scope": map[string]any{
			"path":     []string{},
			"clusters": map[string]string{"kafka-cluster": s.cfg.ClusterID, "schema-registry-cluster": "schema-registry"},
		},
		"id": "",
	}, nil
}

func (s *Server) metadataVersion(*http.Request) (any, error) {
	return map[string]string{"version": s.cfg.Version, "commitId": s.cfg.Commit}, nil
}

// schemaTypes answers GET /schemas/types.
func (s *Server) schemaTypes(*http.Request) (any, error) { return []string{typeAvro}, nil }

// listSchemas answers GET /schemas.
func (s *Server) listSchemas(r *http.Request) (any, error) {
	var list []versionAnswer
	err := s.read(func(st *state) error {
		for _, name := range st.names(prefixOf(r)) {
			vs := st.versions(name, flag(r, "deleted"))
			if flag(r, "latestOnly") && len(vs) > 0 {
				vs = vs[len(vs)-1:]
			}
			for _, v := range vs {
				list = append(list, v.answer())
			}
		}
		return nil
	})
	return page(r, list), err
}

// byIDAnswer is a schema as GET /schemas/ids/{id} tells it.
type byIDAnswer struct {
	SchemaType string          `json:"schemaType,omitempty"`
	Schema     string          `json:"schema"`
	References json.RawMessage `json:"references,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	RuleSet    json.RawMessage `json:"ruleSet,omitempty"`
	MaxID      *int32          `json:"maxId,omitempty"`
}

// withID has look at the schema that the path names. Softly deleted versions keep theirs:
// there are records framed with it.
func (s *Server) withID(r *http.Request, look func(*state, *schemaText)) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 32)
	if err != nil {
		return faultf(http.StatusNotFound, "%.32q is not a schema id", r.PathValue("id"))
	}
	return s.read(func(st *state) error {
		t := st.byID[int32(id)]
		if t == nil {
			return faultf(codeSchemaNotFound, "there is no schema %d", id)
		}
		look(st, t)
		return nil
	})
}

// schemaByID answers GET /schemas/ids/{id}. A subject in the query only says where to look
// first, and a format none that Avro has here.
func (s *Server) schemaByID(r *http.Request) (any, error) {
	var answer byIDAnswer
	err := s.withID(r, func(st *state, t *schemaText) {
		answer = byIDAnswer{SchemaType: t.schemaType, Schema: t.schema, References: t.references, Metadata: t.metadata, RuleSet: t.ruleSet}
		if flag(r, "fetchMaxId") {
			maxID := st.maxID
			answer.MaxID = &maxID
		}
	})
	return answer, err
}

// bareSchemaByID answers GET /schemas/ids/{id}/schema.
func (s *Server) bareSchemaByID(r *http.Request) (any, error) {
	var answer bareText
	err := s.withID(r, func(_ *state, t *schemaText) { answer = bareText(t.schema) })
	return answer, err
}

// subjectsByID answers GET /schemas/ids/{id}/subjects.
func (s *Server) subjectsByID(r *http.Request) (any, error) {
	var names []string
	err := s.withID(r, func(_ *state, t *schemaText) {
		for _, v := range t.shown(flag(r, "deleted")) {
			names = append(names, v.subject)
		}
	})
	slices.Sort(names)
	return page(r, slices.Compact(names)), err
}

type subjectVersion struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// versionsByID answers GET /schemas/ids/{id}/versions.
func (s *Server) versionsByID(r *http.Request) (any, error) {
	var list []subjectVersion
	err := s.withID(r, func(_ *state, t *schemaText) {
		for _, v := range t.shown(flag(r, "deleted")) {
			list = append(list, subjectVersion{v.subject, v.number})
		}
	})
	return page(r, list), err
}

// shown returns the versions that hold t, those not deleted or all.
func (t *schemaText) shown(deleted bool) []*version {
	var vs []*version
	for _, v := range t.holders {
		if deleted || !v.deleted {
			vs = append(vs, v)
		}
	}
	return vs
}
