package registry

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// route is one resource of the API. Paths are matched as they were sent, segment by
// segment, because a subject may hold a slash (%2F), be empty or be "..": net/http's own
// multiplexer would redirect to another path.
type route struct {
	method string
	path   []string // {name} stands for any segment, which the request's PathValue returns
	serve  func(*http.Request) (any, error)
}

// table lists what is served.
func (s *Server) table() []route {
	var routes []route
	add := func(method, path string, serve func(*http.Request) (any, error)) {
		routes = append(routes, route{method, strings.Split(path, "/")[1:], serve})
	}
	add("GET", "/", s.root)
	add("POST", "/", s.root)
	add("GET", "/contexts", s.contexts)
	add("GET", "/v1/metadata/id", s.metadataID)
	add("GET", "/v1/metadata/version", s.metadataVersion)

	add("GET", "/schemas", s.listSchemas)
	add("GET", "/schemas/types", s.schemaTypes)
	add("GET", "/schemas/ids/{id}", s.schemaByID)
	add("GET", "/schemas/ids/{id}/schema", s.bareSchemaByID)
	add("GET", "/schemas/ids/{id}/subjects", s.subjectsByID)
	add("GET", "/schemas/ids/{id}/versions", s.versionsByID)

	add("GET", "/subjects", s.listSubjects)
	add("POST", "/subjects/{subject}", s.lookup)
	add("DELETE", "/subjects/{subject}", s.deleteSubject)
	add("GET", "/subjects/{subject}/versions", s.listVersions)
	add("POST", "/subjects/{subject}/versions", s.register)
	add("GET", "/subjects/{subject}/versions/{version}", s.getVersion)
	add("DELETE", "/subjects/{subject}/versions/{version}", s.deleteVersion)
	add("GET", "/subjects/{subject}/versions/{version}/schema", s.bareVersion)
	add("GET", "/subjects/{subject}/versions/{version}/referencedby", s.referencedBy)

	add("POST", "/compatibility/subjects/{subject}/versions", s.checkAll)
	add("POST", "/compatibility/subjects/{subject}/versions/{version}", s.checkOne)

	for _, path := range []string{"", "/{subject}"} {
		add("GET", "/config"+path, s.getConfig)
		add("PUT", "/config"+path, s.putConfig)
		add("DELETE", "/config"+path, s.deleteConfig)
		add("GET", "/mode"+path, s.getMode)
		add("PUT", "/mode"+path, s.putMode)
		add("DELETE", "/mode"+path, s.deleteMode)
	}
	return routes
}

// find returns what serves a request, and sets its path values.
func (s *Server) find(r *http.Request) (func(*http.Request) (any, error), error) {
	path := r.URL.EscapedPath()
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	known := false
	for _, rt := range s.routes {
		if !rt.match(segments) {
			continue
		}
		known = true
		if rt.method == method {
			return rt.serve, rt.setValues(r, segments)
		}
	}
	if known {
		return nil, faultf(http.StatusMethodNotAllowed, "this resource does not take %.16s", r.Method)
	}
	return nil, faultf(http.StatusNotFound, "no such resource")
}

func (rt *route) match(segments []string) bool {
	if len(segments) != len(rt.path) {
		return false
	}
	for i, p := range rt.path {
		if !strings.HasPrefix(p, "{") && p != segments[i] {
			return false
		}
	}
	return true
}

func (rt *route) setValues(r *http.Request, segments []string) error {
	for i, p := range rt.path {
		if !strings.HasPrefix(p, "{") {
			continue
		}
		v, err := url.PathUnescape(segments[i])
		if err != nil {
			return faultf(http.StatusBadRequest, "the path is not well escaped")
		}
		r.SetPathValue(strings.Trim(p, "{}"), v)
	}
	return nil
}

// defaultContext is how the default context may be written before a subject.
const defaultContext = ":.:"

// subjectOf returns the subject that the path names, which may not exist.
func subjectOf(r *http.Request) string {
	return strings.TrimPrefix(r.PathValue("subject"), defaultContext)
}

// newSubject returns the subject that the path names, if it may be written.
func newSubject(r *http.Request) (string, error) {
	name := subjectOf(r)
	switch {
	case name == "" || name == "__GLOBAL" || name == "__EMPTY" || !printable(name):
		return "", faultf(codeInvalidSubject, "%.200q cannot be the name of a subject", name)
	case strings.HasPrefix(name, ":."), strings.HasPrefix(name, ":*:"):
		return "", faultf(codeInvalidSubject, "subject %.200q is in a context; this registry has the default context only", name)
	}
	return name, nil
}

// flag reads a boolean of the query; anything but true is false.
func flag(r *http.Request, name string) bool {
	return strings.EqualFold(r.URL.Query().Get(name), "true")
}

// prefixOf reads subjectPrefix of the query. `:*:` stands for all contexts, of which
// there is one.
func prefixOf(r *http.Request) string {
	p := r.URL.Query().Get("subjectPrefix")
	p = strings.TrimPrefix(p, ":*:")
	return strings.TrimPrefix(p, defaultContext)
}

// page cuts a list to what offset and limit of the query ask for.
func page[T any](r *http.Request, list []T) []T {
	q := r.URL.Query()
	if offset, err := strconv.Atoi(q.Get("offset")); err == nil && offset > 0 {
		list = list[min(offset, len(list)):]
	}
	if limit, err := strconv.Atoi(q.Get("limit")); err == nil && limit >= 0 {
		list = list[:min(limit, len(list))]
	}
	if list == nil {
		return []T{} // [] in JSON, where nil would be null
	}
	return list
}

// versionOf reads the path's version; latest is -1, as it may be written there too.
func versionOf(r *http.Request) (int, error) {
	text := strings.TrimSpace(r.PathValue("version"))
	if strings.EqualFold(text, "latest") {
		return latest, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 && n != latest {
		return 0, faultf(codeInvalidVersion, "%.64q is not a version: want a number from 1 to 2147483647, or latest", text)
	}
	return int(n), nil
}

const latest = -1
