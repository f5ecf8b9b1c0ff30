package registry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// TestClient takes every way through a registry.
func TestClient(t *testing.T) {
	ctx := t.Context()
	c := serve(t, registrytest.NewLog())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Ping(ctx))
	const subject = "shop/a b.ü-value"
	id, err := c.Register(ctx, subject, schemaA)
	must(err)
	schema, err := c.SchemaByID(ctx, id)
	must(err)
	if id != 1 || schema != schemaA {
		t.Errorf("id %d, schema %s", id, schema)
	}
	reasons, err := c.Compatible(ctx, subject, schemaS)
	must(err)
	if len(reasons) != 1 || !strings.Contains(reasons[0], "a: ") {
		t.Errorf("reasons %q", reasons)
	}
	reasons, err = c.Compatible(ctx, subject, schemaAB)
	must(err)
	if reasons != nil {
		t.Errorf("reasons %q", reasons)
	}
	if _, _, err := c.Lookup(ctx, subject, schemaAB); !registry.NotFound(err) {
		t.Errorf("look-up: %v", err)
	}
	must(c.SetLevel(ctx, subject, registry.None))
	level, err := c.Level(ctx, subject)
	must(err)
	global, err := c.Level(ctx, "")
	must(err)
	if level != registry.None || global != registry.Backward {
		t.Errorf("levels %s, %s", level, global)
	}
	must(c.SetLevel(ctx, "", registry.Full))
	if global, err = c.Level(ctx, "unknown"); err != nil || global != registry.Full {
		t.Errorf("global level %s, %v", global, err)
	}
	_, err = c.Register(ctx, subject, schemaS)
	must(err)
	id, version, err := c.Lookup(ctx, subject, schemaS)
	must(err)
	last, err := c.Latest(ctx, subject)
	must(err)
	if want := (registry.Version{Subject: subject, ID: 2, Version: 2, Schema: schemaS}); last != want || id != 2 || version != 2 {
		t.Errorf("latest %+v, id %d, version %d", last, id, version)
	}
	subjects, err := c.Subjects(ctx)
	must(err)
	versions, err := c.Versions(ctx, subject)
	must(err)
	if !slices.Equal(subjects, []string{subject}) || !slices.Equal(versions, []int{1, 2}) {
		t.Errorf("subjects %q, versions %v", subjects, versions)
	}
	if _, err := c.Latest(ctx, "unknown"); !registry.NotFound(err) || registry.Incompatible(err) {
		t.Errorf("latest of an unknown subject: %v", err)
	}
}

// counting counts a server's requests and connections.
type counting struct {
	*httptest.Server
	requests, connections atomic.Int32
}

func count(t *testing.T, h http.Handler) *counting {
	c := new(counting)
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		h.ServeHTTP(w, r)
	}))
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.connections.Add(1)
		}
	}
	c.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func TestClientCaches(t *testing.T) {
	h := count(t, newServer(t, registrytest.NewLog()))
	c := newClient(t, registry.ClientConfig{URL: h.URL + "/"})
	for range 5 {
		for i := range 10 {
			id, err := c.Register(t.Context(), "s", record(fmt.Sprintf("f%d int=0", i)))
			if err != nil || id != int32(i+1) {
				t.Fatal(id, err)
			}
			if _, err := c.SchemaByID(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if _, err := c.SchemaByID(t.Context(), 99); !registry.NotFound(err) {
				t.Fatal(err)
			}
		}
	}
	// Ten registrations, ten schemas; what is not there is asked for each time.
	if n := h.requests.Load(); n != 70 {
		t.Errorf("%d requests, want 70", n)
	}
	if n := h.connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// answering is a registry that answers everything alike.
func answering(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status >= 300 && status < 400 {
			w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestClientErrors(t *testing.T) {
	errorBody := func(code int, message string) string {
		b, _ := json.Marshal(map[string]any{"error_code": code, "message": message})
		return string(b)
	}
	for _, c := range []struct {
		status int
		body   string
		fatal  bool
		text   string   // in the error
		hint   []string // in the hint
	}{
		{409, errorBody(40901, "b: string cannot read int"), true, "answered 409 (40901): b: string cannot read int",
			[]string{`"shop.orders-value"`, "b: string cannot read int", "NONE", "revert", "reader"}},
		{409, "", true, "409", []string{"shop.orders-value", "NONE"}},
		{422, errorBody(42201, "bad schema"), true, "bad schema", []string{"refuses"}},
		{422, errorBody(42205, "read-only"), true, "read-only", []string{"mode"}},
		{401, errorBody(401, "Unauthorized"), true, "401", []string{"user and password"}},
		{403, "<html>forbidden s3cret</html>", true, "403", []string{"user and password"}},
		{404, errorBody(40401, "no subject"), false, "40401", nil},
		{404, errorBody(404, "HTTP 404"), true, "404", []string{"URL"}},
		{404, "404 page not found", true, "404", []string{"URL"}},
		{405, "", true, "405", nil},
		{307, "", true, "307", []string{"redirects"}},
		{408, "", false, "408", nil},
		{429, "", false, "429", nil},
		{500, errorBody(50001, "store"), false, "50001", []string{"fault"}},
		{500, errorBody(50004, "no leader"), false, "50004", []string{"fault"}},
		{503, "", false, "503", []string{"fault"}},
		{200, "<html>welcome</html>", false, "read the answer", []string{"URL"}},
		{200, `{"id":0}`, false, "id 0", []string{"URL"}},
		{200, `{"id":5000000000}`, false, "read the answer", []string{"URL"}},
		{500, errorBody(50001, strings.Repeat("ü", 10000)), false, "…", nil},
	} {
		h := count(t, answering(c.status, c.body))
		client := newClient(t, registry.ClientConfig{URL: h.URL, User: "u", Password: "p4ss"})
		_, err := client.Register(t.Context(), "shop.orders-value", schemaA)
		var e *registry.Error
		if !errors.As(err, &e) {
			t.Fatalf("%d %s: %v", c.status, c.body, err)
		}
		if e.Fatal() != c.fatal || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), `register schema for subject "shop.orders-value"`) {
			t.Errorf("%d %.80s: fatal %t, %v", c.status, c.body, e.Fatal(), err)
		}
		for _, want := range c.hint {
			if !strings.Contains(e.Hint(), want) {
				t.Errorf("%d %.80s: hint %q has no %q", c.status, c.body, e.Hint(), want)
			}
		}
		for _, text := range []string{err.Error(), e.Hint()} {
			if strings.Contains(text, "p4ss") || strings.Contains(text, "s3cret") || len(text) > 10000 {
				t.Errorf("%d %.80s: told %.200q", c.status, c.body, text)
			}
		}
		if n := h.requests.Load(); n != 1 {
			t.Errorf("%d: %d requests", c.status, n)
		}
		if (c.status == 409) != registry.Incompatible(err) {
			t.Errorf("%d: incompatible %t", c.status, registry.Incompatible(err))
		}
	}
}

// TestWrongID: a registry answers the id of another schema.
func TestWrongID(t *testing.T) {
	for _, kept := range []string{
		schemaS, schemaAB, record("b int"), strings.Replace(schemaA, `"R"`, `"Other"`, 1), `"int"`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"]}]}`,
	} {
		h := count(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = io.WriteString(w, `{"id":7}`)
				return
			}
			_, _ = io.WriteString(w, body(kept))
		}))
		client := newClient(t, registry.ClientConfig{URL: h.URL})
		_, err := client.Register(t.Context(), "s", schemaA)
		var e *registry.Error
		if !errors.As(err, &e) || !e.Fatal() || !strings.Contains(err.Error(), "another schema") || !strings.Contains(e.Hint(), "two registries") {
			t.Errorf("kept %s: %v", kept, err)
		}
	}
	// Rendered anew it is still the same schema, also when it contains itself.
	list := `{"type":"record","name":"n.L","fields":[{"name":"next","type":["null","n.L"],"default":null},{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}}]}`
	again := `{"type":"record","name":"L","namespace":"n","doc":"x","fields":[{"name":"next","type":["null","L"]},{"name":"d","type":{"type":"bytes","scale":2,"precision":4,"logicalType":"decimal"}}]}`
	h := count(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"id":7}`)
			return
		}
		_, _ = io.WriteString(w, body(again))
	}))
	if id, err := newClient(t, registry.ClientConfig{URL: h.URL}).Register(t.Context(), "s", list); err != nil || id != 7 {
		t.Errorf("id %d, %v", id, err)
	}
}

func TestClientTakesOnlyAvro(t *testing.T) {
	for _, answer := range []string{
		`{"schema":"syntax","schemaType":"PROTOBUF"}`,
		`{"schema":"\"int\"","references":[{"name":"n","subject":"s","version":1}]}`,
		`{}`,
	} {
		h := count(t, answering(200, answer))
		if s, err := newClient(t, registry.ClientConfig{URL: h.URL}).SchemaByID(t.Context(), 1); err == nil {
			t.Errorf("%s taken as %s", answer, s)
		}
	}
}

func TestClientConfig(t *testing.T) {
	for raw, want := range map[string]string{
		"http://user:s3cret@host:8081": "holds a user or password",
		"http://user@host:8081":        "holds a user or password",
		"ftp://host":                   "must begin with http",
		"host:8081":                    "http",
		"//host":                       "must begin with http",
		"http://":                      "names no host",
		"http://host?token=s3cret":     "neither a query",
		"http://host#s3cret":           "neither a query",
		"http://host:s3cret":           "cannot be read",
		"":                             "must begin with http",
	} {
		_, err := registry.NewClient(registry.ClientConfig{URL: raw})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if _, err := registry.NewClient(registry.ClientConfig{URL: "http://host", User: "a:b"}); err == nil {
		t.Error("took a user with a colon")
	}
}

func TestClientSends(t *testing.T) {
	var got http.Request
	var path string
	h := count(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, path = *r, r.URL.EscapedPath()
		_, _ = io.WriteString(w, `[]`)
	}))
	c := newClient(t, registry.ClientConfig{URL: h.URL + "/apis/ccompat/v7/", User: "u", Password: "p4ss"})
	if _, err := c.Versions(t.Context(), "a/b%ü"); err != nil {
		t.Fatal(err)
	}
	if user, password, _ := got.BasicAuth(); user != "u" || password != "p4ss" {
		t.Errorf("credentials %q %q", user, password)
	}
	if path != "/apis/ccompat/v7/subjects/a%2Fb%25%C3%BC/versions" {
		t.Errorf("path %s", path)
	}
	if got.Header.Get("Accept") == "" {
		t.Error("no Accept")
	}
}

func TestClientTimeout(t *testing.T) {
	release := make(chan struct{})
	h := count(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	c := newClient(t, registry.ClientConfig{URL: h.URL, Timeout: 20 * time.Millisecond})
	_, err := c.Register(t.Context(), "s", schemaA)
	var e *registry.Error
	if !errors.As(err, &e) || e.Fatal() || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("no answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestClientUnreachable(t *testing.T) {
	h := httptest.NewServer(answering(200, ""))
	h.Close()
	c := newClient(t, registry.ClientConfig{URL: h.URL + "/s3cret-path"})
	err := c.Ping(t.Context())
	var e *registry.Error
	if !errors.As(err, &e) || e.Fatal() || e.Status != 0 || !strings.Contains(e.Hint(), "runs and can be reached") {
		t.Errorf("unreachable: %v", err)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error repeats the URL: %v", err)
	}
}

func TestClientCutAnswer(t *testing.T) {
	h := count(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"id"`)
	}))
	_, err := newClient(t, registry.ClientConfig{URL: h.URL}).Register(t.Context(), "s", schemaA)
	var e *registry.Error
	if !errors.As(err, &e) || e.Fatal() || e.Status != 0 {
		t.Errorf("cut answer: %v", err)
	}
}

func TestClientHugeAnswer(t *testing.T) {
	h := count(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	c := newClient(t, registry.ClientConfig{URL: h.URL})
	if _, err := c.SchemaByID(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "larger than 33554432 bytes") {
		t.Errorf("endless answer: %v", err)
	}
}

func TestClientTLS(t *testing.T) {
	h := httptest.NewUnstartedServer(newServer(t, registrytest.NewLog()))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.StartTLS()
	t.Cleanup(h.Close)
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	c := newClient(t, registry.ClientConfig{URL: h.URL, TLS: &tls.Config{RootCAs: roots}})
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	for name, cfg := range map[string]*tls.Config{"no CA": nil, "other name": {RootCAs: roots, ServerName: "other.example"}} {
		err := newClient(t, registry.ClientConfig{URL: h.URL, TLS: cfg}).Ping(t.Context())
		var e *registry.Error
		if !errors.As(err, &e) || !e.Fatal() || !strings.Contains(e.Hint(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := httptest.NewUnstartedServer(answering(200, `{"compatibilityLevel":"NONE"}`))
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	t.Cleanup(old.Close)
	if err := newClient(t, registry.ClientConfig{URL: old.URL, TLS: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}}).Ping(t.Context()); err == nil {
		t.Error("spoke TLS 1.1")
	}
}
