package registry_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// newServer starts a server over a log.
func newServer(t testing.TB, log registry.Log) *registry.Server {
	t.Helper()
	s, err := registry.NewServer(context.Background(), log, registry.ServerConfig{ClusterID: "c1", Version: "1.2.3", Commit: "abc"})
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	return s
}

// serve starts a server over log on loopback, and a client of it.
func serve(t testing.TB, log registry.Log) *registry.Client {
	t.Helper()
	h := httptest.NewServer(newServer(t, log))
	t.Cleanup(h.Close)
	return newClient(t, registry.ClientConfig{URL: h.URL})
}

func newClient(t testing.TB, cfg registry.ClientConfig) *registry.Client {
	t.Helper()
	c, err := registry.NewClient(cfg)
	if err != nil {
		t.Fatalf("make client: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// ask sends one request, `METHOD /path` with an optional body, and returns the answer.
func ask(t testing.TB, h http.Handler, what, body string) *httptest.ResponseRecorder {
	t.Helper()
	method, path, _ := strings.Cut(what, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// expect asks and compares status and JSON. In want, a string "*" stands for any string.
func expect(t testing.TB, h http.Handler, what, body string, status int, want string) {
	t.Helper()
	w := ask(t, h, what, body)
	if w.Code != status {
		t.Errorf("%s %s: status %d, want %d: %s", what, body, w.Code, status, w.Body)
		return
	}
	var got, wanted any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Errorf("%s: answer is not JSON: %s", what, w.Body)
		return
	}
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatalf("test's own JSON %s: %v", want, err)
	}
	if !alike(got, wanted) {
		t.Errorf("%s %s:\n got %s\nwant %s", what, body, w.Body, want)
	}
}

func alike(got, want any) bool {
	g, ok1 := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if !ok1 || !ok2 {
		s, ok := got.(string)
		return reflect.DeepEqual(got, want) || ok && s != "" && want == "*"
	}
	for k := range w {
		if !alike(g[k], w[k]) {
			return false
		}
	}
	return len(g) == len(w)
}

// refused is the JSON of an error.
func refused(code string) string { return `{"error_code":` + code + `,"message":"*"}` }

// record returns a schema of a record with these fields, and body the request for it.
func record(fields ...string) string {
	var fs []string
	for _, f := range fields {
		name, typ, _ := strings.Cut(f, " ")
		typ, def, ok := strings.Cut(typ, "=")
		if ok {
			def = `,"default":` + def
		}
		fs = append(fs, `{"name":"`+name+`","type":"`+typ+`"`+def+`}`)
	}
	return `{"type":"record","name":"R","fields":[` + strings.Join(fs, ",") + `]}`
}

func body(schema string) string {
	b, _ := json.Marshal(map[string]string{"schema": schema})
	return string(b)
}

// keys renders the entries of a store, one line each.
func dump(s *registrytest.Store) string {
	var b strings.Builder
	for _, e := range s.Entries() {
		b.Write(e.Key)
		b.WriteString(" ")
		if e.Value == nil {
			b.WriteString("-")
		}
		b.Write(e.Value)
		b.WriteString("\n")
	}
	return b.String()
}

// flaky is a Log whose next calls can be made to fail.
type flaky struct {
	registry.Log
	onAppend func(write func() error) error
	onRead   func() error
	appends  int
}

func (f *flaky) Append(ctx context.Context, es []registry.Entry) error {
	f.appends++
	write := func() error { return f.Log.Append(ctx, es) }
	if f.onAppend != nil {
		return f.onAppend(write)
	}
	return write()
}

func (f *flaky) Read(ctx context.Context, from int64, fn func(int64, registry.Entry) error) (int64, error) {
	if f.onRead != nil {
		if err := f.onRead(); err != nil {
			return from, err
		}
	}
	return f.Log.Read(ctx, from, fn)
}
