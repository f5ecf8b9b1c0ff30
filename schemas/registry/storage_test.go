package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// TestLogFormat holds the log of a short life, byte for byte.
func TestLogFormat(t *testing.T) {
	log := registrytest.NewLog()
	s := newServer(t, log)
	for _, what := range [][2]string{
		{"POST /subjects/s/versions", body(schemaA)},
		{"POST /subjects/s/versions", body(" " + schemaAB)},
		{"PUT /config", `{"compatibility":"FULL"}`},
		{"PUT /config/s", `{"compatibility":"NONE"}`},
		{"PUT /mode/s", `{"mode":"READWRITE"}`},
		{"DELETE /config", ""},
		{"DELETE /subjects/s/versions/1", ""},
		{"POST /subjects/s/versions", body(schemaA)},
		{"DELETE /subjects/s", ""},
		{"DELETE /subjects/s?permanent=true", ""},
	} {
		if w := ask(t, s, what[0], what[1]); w.Code != 200 {
			t.Fatalf("%s: %d %s", what[0], w.Code, w.Body)
		}
	}
	a, ab := quoted(schemaA), quoted(schemaAB)
	want := `{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} {"subject":"s","version":1,"id":1,"schema":` + a + `,"deleted":false}
{"keytype":"SCHEMA","subject":"s","version":2,"magic":1} {"subject":"s","version":2,"id":2,"schema":` + ab + `,"deleted":false}
{"keytype":"CONFIG","magic":0} {"compatibilityLevel":"FULL"}
{"keytype":"CONFIG","subject":"s","magic":0} {"subject":"s","compatibilityLevel":"NONE"}
{"keytype":"MODE","subject":"s","magic":0} {"subject":"s","mode":"READWRITE"}
{"keytype":"CONFIG","magic":0} -
{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} {"subject":"s","version":1,"id":1,"schema":` + a + `,"deleted":true}
{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} -
{"keytype":"SCHEMA","subject":"s","version":3,"magic":1} {"subject":"s","version":3,"id":1,"schema":` + a + `,"deleted":false}
{"keytype":"DELETE_SUBJECT","subject":"s","magic":0} {"subject":"s","version":3}
{"keytype":"NOOP","magic":0} {"maxId":2}
{"keytype":"SCHEMA","subject":"s","version":3,"magic":1} -
{"keytype":"SCHEMA","subject":"s","version":2,"magic":1} -
{"keytype":"MODE","subject":"s","magic":0} -
{"keytype":"CONFIG","subject":"s","magic":0} -
`
	if got := dump(log.Store()); got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}

// everything asks for all that a registry can tell.
func everything(t *testing.T, s *registry.Server) string {
	var b strings.Builder
	tell := func(what string) string {
		w := ask(t, s, what, "")
		fmt.Fprintf(&b, "%s: %d %s\n", what, w.Code, w.Body)
		return w.Body.String()
	}
	tell("GET /schemas?deleted=true")
	tell("GET /config")
	tell("GET /mode")
	var subjects []string
	if err := json.Unmarshal([]byte(tell("GET /subjects?deleted=true")), &subjects); err != nil {
		t.Fatal(err)
	}
	for _, name := range subjects {
		tell("GET /subjects/" + name + "/versions?deletedAsNegative=true")
		tell("GET /config/" + name)
		tell("GET /mode/" + name)
	}
	for id := range 60 {
		tell(fmt.Sprintf("GET /schemas/ids/%d?fetchMaxId=true", id))
		tell(fmt.Sprintf("GET /schemas/ids/%d/subjects?deleted=true", id))
	}
	return b.String()
}

// TestRestart lives random lives, with restarts on the whole log and on compacted ones. A
// restarted registry tells what the one before told, and no id ever stands for two schemas.
func TestRestart(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		log := registrytest.NewLog()
		s := newServer(t, log)
		meant := make(map[string]string) // schemas by id
		for range 80 {
			name := string(rune('a' + rnd.IntN(3)))
			version := fmt.Sprint(1 + rnd.IntN(5))
			permanent := fmt.Sprintf("?permanent=%t", rnd.IntN(2) == 0)
			switch rnd.IntN(8) {
			case 0, 1, 2:
				schema := record(fmt.Sprintf("f%d int=0", rnd.IntN(12)))
				w := ask(t, s, "POST /subjects/"+name+"/versions", body(schema))
				if was, ok := meant[w.Body.String()]; ok && was != schema {
					t.Fatalf("seed %d: %s meant %s, now %s", seed, w.Body, was, schema)
				} else if w.Code == 200 {
					meant[w.Body.String()] = schema
				}
			case 3:
				ask(t, s, "DELETE /subjects/"+name+"/versions/"+version+permanent, "")
			case 4:
				ask(t, s, "DELETE /subjects/"+name+permanent, "")
			case 5:
				ask(t, s, "PUT /config/"+name, `{"compatibility":"FULL"}`)
			case 6:
				ask(t, s, []string{"DELETE /config/", "DELETE /mode/"}[rnd.IntN(2)]+name, "")
			case 7:
				ask(t, s, "PUT /mode/"+name, `{"mode":"`+[]string{"READONLY", "READWRITE"}[rnd.IntN(2)]+`"}`)
				ask(t, s, "DELETE /mode/"+name, "")
			}
		}
		before := everything(t, s)
		for _, compact := range []func(){
			func() {}, func() { log.Store().Compact(false) }, func() { log.Store().Compact(true) },
		} {
			compact()
			if after := everything(t, newServer(t, log.Store().Log())); after != before {
				t.Fatalf("seed %d: after a restart\n%s\nbefore\n%s", seed, after, before)
			}
		}
	}
}

// TestConfluentLog starts on a log as Confluent's registry leaves it and goes on with it.
func TestConfluentLog(t *testing.T) {
	log := registrytest.NewLog()
	if err := log.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) {
		e := registry.Entry{Key: []byte(key)}
		if value != "" {
			e.Value = []byte(value)
		}
		if err := log.Append(t.Context(), []registry.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"keytype":"NOOP","magic":0}`, ``)
	put(`{"keytype":"CONFIG","subject":null,"magic":0}`, `{"compatibilityLevel":"FULL","normalize":true}`)
	put(`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`, `{"subject":"s","version":1,"id":4,"md5":"bWQ1","schema":`+quoted(schemaA)+`,"deleted":false}`)
	put(`{"keytype":"SCHEMA","subject":"p","version":1,"magic":1}`,
		`{"subject":"p","version":1,"id":6,"schemaType":"PROTOBUF","references":[{"name":"n","subject":"s","version":1}],"schema":"syntax","deleted":false}`)
	put(`{"keytype":"SCHEMA","subject":"q","version":1,"magic":1}`, `{"subject":"q","version":1,"id":4,"schema":"\"int\"","deleted":false}`) // an id given twice
	put(`{"keytype":"CONTEXT","tenant":"default","context":".c"}`, `{"tenant":"default","context":".c"}`)
	put(`{"keytype":"SCHEMA","subject":":.c:s","version":1,"magic":1}`, `{"subject":":.c:s","version":1,"id":1,"schema":"\"int\"","deleted":false}`)
	put(`{"keytype":"LATER","magic":9}`, `{"anything":1}`)

	s := newServer(t, log.Store().Log())
	expect(t, s, "GET /subjects", "", 200, `["p","s"]`)
	expect(t, s, "GET /config", "", 200, `{"compatibilityLevel":"FULL"}`)
	expect(t, s, "GET /schemas/ids/6", "", 200, `{"schema":"syntax","schemaType":"PROTOBUF","references":[{"name":"n","subject":"s","version":1}]}`)
	expect(t, s, "GET /subjects/s/versions/1/referencedby", "", 200, `[6]`)
	expect(t, s, "DELETE /subjects/s", "", 422, refused("42206"))
	expect(t, s, "DELETE /subjects/s/versions/1", "", 422, refused("42206"))
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":4}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":7}`)
	expect(t, s, "POST /subjects/p/versions", body(schemaAB), 409, refused("40901"))
	expect(t, s, "DELETE /subjects/p", "", 200, `[1]`)
	expect(t, s, "DELETE /subjects/p?permanent=true", "", 200, `[1]`)
	expect(t, s, "DELETE /subjects/s/versions/1", "", 200, `1`)
	expect(t, s, "PUT /config", `{"compatibility":"NONE"}`, 200, `{"compatibility":"NONE"}`)
	log.Store().Compact(true)
	got := dump(log.Store())
	for _, want := range []string{
		`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1} {"subject":"s","version":1,"id":4,"md5":"bWQ1","schema":` + quoted(schemaA) + `,"deleted":true}`,
		`{"keytype":"CONFIG","magic":0} {"compatibilityLevel":"NONE","normalize":true}`,
		`{"keytype":"LATER","magic":9} {"anything":1}`,
		`{"keytype":"SCHEMA","subject":":.c:s","version":1,"magic":1} `,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("log has no %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, `"subject":null`) {
		t.Errorf("the global level stands under two keys:\n%s", got)
	}
}

func TestDamagedLog(t *testing.T) {
	log := registrytest.NewLog()
	if err := log.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(t.Context(), []registry.Entry{{Key: []byte(`{"keytype":"NOOP","magic":0}`)}, {Key: []byte("garbage")}}); err != nil {
		t.Fatal(err)
	}
	_, err := registry.NewServer(t.Context(), log.Store().Log(), registry.ServerConfig{})
	if err == nil || !strings.Contains(err.Error(), `record 1 of the schemas log: key "garbage"`) {
		t.Errorf("start on a damaged log: %v", err)
	}
}

// TestTwoServers: the second server on a log takes it over, and what the first writes from
// then on is not there, whatever it is.
func TestTwoServers(t *testing.T) {
	log := registrytest.NewLog()
	first := newServer(t, log)
	expect(t, first, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	second := newServer(t, log.Store().Log())
	select {
	case <-first.Done():
		t.Fatal("fenced before it could know")
	default:
	}
	if err := first.Err(); err != nil {
		t.Fatal(err)
	}
	expect(t, second, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":2}`)
	before := dump(log.Store())
	for _, what := range [][2]string{
		{"POST /subjects/s/versions", body(schemaS)},
		{"POST /subjects/new/versions", body(schemaS)},
		{"PUT /config", `{"compatibility":"NONE"}`},
		{"PUT /mode/s", `{"mode":"READONLY"}`},
		{"DELETE /subjects/s", ""},
		{"DELETE /subjects/s/versions/1", ""},
	} {
		w := ask(t, first, what[0], what[1])
		if w.Code == 200 {
			t.Errorf("%s: the deposed server answers %s", what[0], w.Body)
		}
	}
	expect(t, first, "PUT /config", `{"compatibility":"NONE"}`, 500, refused("50004"))
	if got := dump(log.Store()); got != before {
		t.Errorf("the deposed server wrote:\n%s", got)
	}
	mustBeDone(t, first)
	if err := first.Err(); !errors.Is(err, registry.ErrFenced) {
		t.Errorf("reason: %v", err)
	}
	// It still answers what it knew, and what is registered already.
	expect(t, first, "GET /schemas/ids/1", "", 200, `{"schema":`+quoted(schemaA)+`}`)
	expect(t, first, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	// The second goes on, and none of it made the first write.
	expect(t, second, "POST /subjects/new/versions", body(schemaS), 200, `{"id":3}`)
	if err := second.Err(); err != nil {
		t.Error(err)
	}
}

func mustBeDone(t *testing.T, s *registry.Server) {
	t.Helper()
	select {
	case <-s.Done():
	default:
		t.Fatal("the server does not say that it was fenced")
	}
}

// TestTwoServersRace has two servers register at once, one of which is deposed somewhere in
// between. No id stands for two schemas, and what was answered is in the log.
func TestTwoServersRace(t *testing.T) {
	for seed := range 20 {
		log := registrytest.NewLog()
		first := newServer(t, log)
		answers := make([]map[string]string, 2)
		register := func(i int, s *registry.Server) {
			answers[i] = make(map[string]string)
			for j := range 20 {
				schema := record(fmt.Sprintf("f%d_%d_%d int", seed, i, j))
				if w := ask(t, s, fmt.Sprintf("POST /subjects/s%d-%d/versions", i, j), body(schema)); w.Code == 200 {
					answers[i][schema] = w.Body.String()
				}
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { register(0, first) })
		wg.Go(func() { register(1, newServer(t, log.Store().Log())) })
		wg.Wait()
		if len(answers[1]) != 20 {
			t.Fatalf("the new server registered %d of 20", len(answers[1]))
		}
		after := newServer(t, log.Store().Log())
		ids := make(map[string]string)
		for i := range answers {
			for schema, id := range answers[i] {
				if other, ok := ids[id]; ok {
					t.Fatalf("%s stands for %s and %s", id, other, schema)
				}
				ids[id] = schema
				path := "GET /schemas/ids/" + strings.Trim(id, `{}":id`)
				expect(t, after, path, "", 200, `{"schema":`+quoted(schema)+`}`)
			}
		}
	}
}

// TestConcurrentRegistration has many clients register the same schemas under the same and
// other subjects.
func TestConcurrentRegistration(t *testing.T) {
	log := registrytest.NewLog()
	h := httptest.NewServer(newServer(t, log))
	defer h.Close()
	ids := make([]map[string]int32, 8)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = make(map[string]int32)
		c := newClient(t, registry.ClientConfig{URL: h.URL})
		wg.Go(func() {
			for j := range 30 {
				schema := record(fmt.Sprintf("f%d int=0", j))
				id, err := c.Register(t.Context(), []string{"s", "r"}[(i+j)%2], schema)
				if err != nil {
					t.Error(err)
					return
				}
				ids[i][schema] = id
			}
		})
	}
	wg.Wait()
	given := make(map[int32]string)
	for _, m := range ids {
		for schema, id := range m {
			if was, ok := given[id]; ok && was != schema {
				t.Errorf("id %d stands for %s and %s", id, was, schema)
			}
			given[id] = schema
		}
	}
	for id := range int32(30) {
		if given[id+1] == "" {
			t.Errorf("id %d was not given", id+1)
		}
	}
	if n := len(log.Store().Entries()); len(given) != 30 || n != 60 {
		t.Errorf("%d ids, %d entries, want 30 and 60", len(given), n)
	}
}

// TestUnclearAppend: an Append that fails may have written. The log alone decides the
// answer.
func TestUnclearAppend(t *testing.T) {
	broken := errors.New("connection lost")
	log := &flaky{Log: registrytest.NewLog()}
	s := newServer(t, log)

	log.onAppend = func(write func() error) error { return errors.Join(write(), broken) }
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	log.onAppend = func(func() error) error { return broken }
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 500, refused("50001"))
	expect(t, s, "GET /subjects/s/versions", "", 200, `[1]`)

	// Written, and the log then cannot be read: the answer is an error, and the next
	// request finds what is there before it does anything.
	log.onAppend = func(write func() error) error { return errors.Join(write(), broken) }
	log.onRead = func() error { return broken }
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 500, refused("50001"))
	log.appends = 0
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 500, refused("50001"))
	expect(t, s, "PUT /config", `{"compatibility":"NONE"}`, 500, refused("50001"))
	if log.appends != 0 {
		t.Error("wrote without knowing what the log holds")
	}
	log.onAppend, log.onRead = nil, nil
	expect(t, s, "POST /subjects/t/versions", body(schemaS), 200, `{"id":3}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":2}`)
	if log.appends != 1 {
		t.Errorf("%d appends, want 1", log.appends)
	}

	// The append was answered well, but nothing is there.
	log.onAppend = func(func() error) error { return nil }
	expect(t, s, "PUT /config", `{"compatibility":"NONE"}`, 500, refused("50001"))
	expect(t, s, "GET /config", "", 200, `{"compatibilityLevel":"BACKWARD"}`)

	log.appends = 0
	log.onAppend = func(func() error) error { return fmt.Errorf("produce: %w", registry.ErrTooLarge) }
	log.onRead = func() error { return broken }
	expect(t, s, "POST /subjects/t/versions", body(schemaS+" "), 200, `{"id":3}`)
	expect(t, s, "POST /subjects/u/versions", body(schemaS), 422, refused("42209"))

	// Only while settling does it come out that another has taken over.
	log.onAppend = func(func() error) error { return broken }
	log.onRead = func() error { return fmt.Errorf("new epoch: %w", registry.ErrFenced) }
	expect(t, s, "PUT /config", `{"compatibility":"NONE"}`, 500, refused("50004"))
	mustBeDone(t, s)
}

// TestPartialAppend: of several entries only some came into the log.
func TestPartialAppend(t *testing.T) {
	mem := registrytest.NewLog()
	log := &flaky{Log: mem}
	s := newServer(t, log)
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	ask(t, s, "DELETE /subjects/s", "")
	log.onAppend = func(func() error) error {
		es := []registry.Entry{{Key: []byte(`{"keytype":"NOOP","magic":0}`), Value: []byte(`{"maxId":2}`)},
			{Key: []byte(`{"keytype":"SCHEMA","subject":"s","version":2,"magic":1}`)}}
		return errors.Join(mem.Append(t.Context(), es), errors.New("cut"))
	}
	expect(t, s, "DELETE /subjects/s?permanent=true", "", 500, refused("50001"))
	log.onAppend = nil
	expect(t, s, "DELETE /subjects/s?permanent=true", "", 200, `[1]`)
	expect(t, s, "GET /subjects?deleted=true", "", 200, `[]`)
}

// TestSlowLog: a log that does not answer holds up neither reads nor what is registered
// already, and writes only until their time is up.
func TestSlowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &stuck{Log: registrytest.NewLog(), release: make(chan struct{})}
		s, err := registry.NewServer(t.Context(), log, registry.ServerConfig{Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
		log.hold = true
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { expect(t, s, "PUT /config", `{"compatibility":"NONE"}`, 500, refused("50002")) })
		synctest.Wait()
		expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
		expect(t, s, "GET /subjects", "", 200, `["s"]`)
		wg.Go(func() { expect(t, s, "PUT /config", `{"compatibility":"FULL"}`, 500, refused("50002")) })
		wg.Wait()
		if d := time.Since(start); d < time.Minute || d > 2*time.Minute {
			t.Errorf("writes ended after %v", d)
		}
		log.hold = false
		close(log.release)
		expect(t, s, "PUT /config", `{"compatibility":"FULL"}`, 200, `{"compatibility":"FULL"}`)
	})
}

// stuck is a Log whose Append, while held, ends with its context only.
type stuck struct {
	registry.Log
	hold    bool
	release chan struct{}
}

func (l *stuck) Append(ctx context.Context, es []registry.Entry) error {
	if !l.hold {
		return l.Log.Append(ctx, es)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.release:
		return errors.New("released")
	}
}

// TestHangUp: a client that goes away does not cut a write in the middle.
func TestHangUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := &flaky{Log: registrytest.NewLog()}
	s := newServer(t, log)
	log.onAppend = func(write func() error) error {
		cancel()
		return write()
	}
	r := httptest.NewRequestWithContext(ctx, "POST", "/subjects/s/versions", strings.NewReader(body(schemaA)))
	s.ServeHTTP(httptest.NewRecorder(), r)
	expect(t, s, "GET /subjects/s/versions", "", 200, `[1]`)
}

func TestFenceFails(t *testing.T) {
	_, err := registry.NewServer(t.Context(), noFence{registrytest.NewLog()}, registry.ServerConfig{})
	if err == nil || !strings.Contains(err.Error(), "become the writer of the schemas log: no coordinator") {
		t.Errorf("start without a fence: %v", err)
	}
}

type noFence struct{ registry.Log }

func (noFence) Fence(context.Context) error { return errors.New("no coordinator") }
