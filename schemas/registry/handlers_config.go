package registry

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The modes. A subject in any other one that a log names is not written to.
const (
	modeReadWrite = "READWRITE"
	modeReadOnly  = "READONLY"
	modeImport    = "IMPORT"
	modeForward   = "FORWARD"
)

var modes = []string{modeReadWrite, modeReadOnly, modeImport, modeForward}

// settingSubject returns the subject whose level or mode the path names; "": the global
// one, which may be written as the default context too.
func settingSubject(r *http.Request) (string, error) {
	if subjectOf(r) == "" {
		return "", nil
	}
	return newSubject(r)
}

// getConfig answers GET /config and /config/{subject}.
func (s *Server) getConfig(r *http.Request) (any, error) {
	name := subjectOf(r)
	var level Level
	err := s.read(func(st *state) error {
		var set bool
		if level, set = st.level(name); !set && name != "" && !flag(r, "defaultToGlobal") {
			return faultf(codeNoSubjectConfig, "subject %.200q has no compatibility level of its own", name)
		}
		return nil
	})
	return map[string]Level{"compatibilityLevel": level}, err
}

// putConfig answers PUT /config and /config/{subject}.
func (s *Server) putConfig(r *http.Request) (any, error) {
	name, err := settingSubject(r)
	if err != nil {
		return nil, err
	}
	var q map[string]json.RawMessage
	if err := decodeBody(r, &q); err != nil {
		return nil, err
	}
	level := Level(strings.ToUpper(settingValue(q).text("compatibility")))
	if _, ok := levelRules[level]; !ok {
		return nil, faultf(codeInvalidLevel, "%.64q is not a compatibility level; there are NONE, and BACKWARD, FORWARD and FULL with or without _TRANSITIVE", level)
	}
	for field, value := range q {
		if field != "compatibility" && !isEmpty(value) {
			return nil, faultf(codeNotPermitted, "setting %.64q is not supported", field)
		}
	}
	err = s.write(r.Context(), func(st *state) ([]Entry, error) {
		v := st.config[name].with("compatibilityLevel", string(level))
		return st.entries(recordKey{keyType: keyConfig, subject: name}, v.bytes(name)), nil
	})
	return map[string]Level{"compatibility": level}, err
}

// deleteConfig answers DELETE /config and /config/{subject} with the level that was set.
func (s *Server) deleteConfig(r *http.Request) (any, error) {
	name, err := settingSubject(r)
	if err != nil {
		return nil, err
	}
	var level Level
	err = s.write(r.Context(), func(st *state) ([]Entry, error) {
		var set bool
		if level, set = st.level(name); !set {
			if name != "" {
				return nil, subjectNotFound(name)
			}
			return nil, nil
		}
		return st.entries(recordKey{keyType: keyConfig, subject: name}, nil), nil
	})
	return map[string]Level{"compatibilityLevel": level}, err
}

// getMode answers GET /mode and /mode/{subject}.
func (s *Server) getMode(r *http.Request) (any, error) {
	name := subjectOf(r)
	var mode string
	err := s.read(func(st *state) error {
		var set bool
		if mode, set = st.modeOf(name); !set && name != "" && !flag(r, "defaultToGlobal") {
			return faultf(codeNoSubjectMode, "subject %.200q has no mode of its own", name)
		}
		return nil
	})
	return map[string]string{"mode": mode}, err
}

// putMode answers PUT /mode and /mode/{subject}.
func (s *Server) putMode(r *http.Request) (any, error) {
	name, err := settingSubject(r)
	if err != nil {
		return nil, err
	}
	var q struct {
		Mode string `json:"mode"`
	}
	if err := decodeBody(r, &q); err != nil {
		return nil, err
	}
	mode, force := strings.ToUpper(q.Mode), flag(r, "force")
	switch {
	case !slices.Contains(modes, mode):
		return nil, faultf(codeInvalidMode, "%.64q is not a mode; the modes are %v", q.Mode, modes)
	case mode == modeForward && name != "":
		return nil, faultf(codeInvalidMode, "mode FORWARD can be set globally only")
	}
	err = s.write(r.Context(), func(st *state) ([]Entry, error) {
		if old, _ := st.modeOf(name); mode == modeImport && old != modeImport && !force && st.inhabited(name) {
			return nil, faultf(codeNotPermitted, "mode IMPORT needs a place without schemas; force=true sets it anyway")
		}
		v := st.mode[name].with("mode", mode)
		return st.entries(recordKey{keyType: keyMode, subject: name}, v.bytes(name)), nil
	})
	return map[string]string{"mode": mode}, err
}

// inhabited says whether the subject, or with "" any subject, has versions.
func (st *state) inhabited(name string) bool {
	if name != "" {
		return st.latest(name) != nil
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(st.subjects)), func(n string) bool { return st.latest(n) != nil })
}

// deleteMode answers DELETE /mode and /mode/{subject} with the mode that was set. The
// global one can take those of all subjects with it.
func (s *Server) deleteMode(r *http.Request) (any, error) {
	name, err := settingSubject(r)
	if err != nil {
		return nil, err
	}
	recursive := flag(r, "recursive") && name == ""
	var mode string
	err = s.write(r.Context(), func(st *state) ([]Entry, error) {
		var set bool
		if mode, set = st.modeOf(name); !set && name != "" {
			return nil, subjectNotFound(name)
		}
		var es []Entry
		for _, n := range slices.Sorted(maps.Keys(st.mode)) {
			if n == name || recursive {
				es = append(es, st.entries(recordKey{keyType: keyMode, subject: n}, nil)...)
			}
		}
		return es, nil
	})
	return map[string]string{"mode": mode}, err
}
