package registry_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

var (
	schemaA  = record("a int")
	schemaAB = record("a int", "b int=0")
	schemaS  = record("a string") // reads neither, is read by neither
)

// quoted returns a schema as a JSON string.
func quoted(schema string) string {
	return strings.TrimSuffix(strings.TrimPrefix(body(schema), `{"schema":`), "}")
}

func TestMeta(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "GET /", "", 200, `{}`)
	expect(t, s, "POST /", "{}", 200, `{}`)
	expect(t, s, "GET /contexts", "", 200, `["."]`)
	expect(t, s, "GET /schemas/types", "", 200, `["AVRO"]`)
	expect(t, s, "GET /schemas", "", 200, `[]`)
	expect(t, s, "GET /subjects", "", 200, `[]`)
	expect(t, s, "GET /subjects/", "", 200, `[]`)
	expect(t, s, "GET /v1/metadata/id", "", 200,
		`{"id":"","scope":{"path":[],"clusters":{"kafka-cluster":"c1","schema-registry-cluster":"schema-registry"}}}`)
	expect(t, s, "GET /v1/metadata/version", "", 200, `{"version":"1.2.3","commitId":"abc"}`)
	expect(t, s, "GET /nothing", "", 404, refused("404"))
	expect(t, s, "GET /subjects//versions/1/2/3", "", 404, refused("404"))
	expect(t, s, "PATCH /subjects", "", 405, refused("405"))
	expect(t, s, "POST /schemas/ids/1", "", 405, refused("405"))
	if w := ask(t, s, "HEAD /subjects", ""); w.Code != 200 {
		t.Errorf("HEAD: status %d", w.Code)
	}
}

func TestRegister(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	expect(t, s, "POST /subjects/s/versions?normalize=true", body(schemaA), 200, `{"id":1}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":2}`)
	expect(t, s, "POST /subjects/other/versions", body(schemaAB), 200, `{"id":2}`)
	expect(t, s, "POST /subjects/other/versions", body(schemaS), 409, refused("40901"))
	expect(t, s, "POST /subjects/third/versions", body(schemaS), 200, `{"id":3}`)
	expect(t, s, "POST /subjects/third/versions", `{"schema":"\"long\"","schemaType":"AVRO","references":[],"metadata":null,"ruleSet":null,"version":-1,"id":-1}`,
		409, refused("40901"))
	expect(t, s, "GET /subjects/other/versions", "", 200, `[1]`)
	expect(t, s, "GET /subjects/s/versions", "", 200, `[1,2]`)

	t.Run("one schema, written differently", func(t *testing.T) {
		same := " {\"fields\": [ {\"type\":{\"type\":\"int\"}, \"name\":\"a\"} ],\n \"name\":\"R\", \"type\":\"record\"}"
		expect(t, s, "POST /subjects/s/versions", body(same), 200, `{"id":1}`)
		expect(t, s, "POST /subjects/new/versions", body(same), 200, `{"id":1}`)
		expect(t, s, "GET /schemas/ids/1", "", 200, `{"schema":`+quoted(schemaA)+`}`)
		expect(t, s, "POST /subjects/s", body(same), 200, `{"subject":"s","id":1,"version":1,"schema":`+quoted(schemaA)+`}`)
	})
	t.Run("documentation makes another schema", func(t *testing.T) {
		doc := strings.Replace(schemaAB, `"name":"R"`, `"name":"R","doc":"d"`, 1)
		expect(t, s, "POST /subjects/s/versions", body(doc), 200, `{"id":4}`)
	})
}

func TestRegisterRefuses(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	for _, c := range []struct{ path, body, code string }{
		{"s", `{"schema":"{\"type\":\"recor\"}"}`, "42201"},
		{"s", `{"schema":"nonsense"}`, "42201"},
		{"s", `{"schema":""}`, "42201"},
		{"s", `{}`, "42201"},
		{"s", `{"schema":"\"int\"","schemaType":"PROTOBUF"}`, "42201"},
		{"s", `{"schema":"\"int\"","references":[{"name":"x","subject":"y","version":1}]}`, "42201"},
		{"s", `{"schema":"\"int\"","metadata":{"properties":{"a":"b"}}}`, "42201"},
		{"s", `{"schema":"\"int\"","ruleSet":{"domainRules":[]}}`, "42201"},
		{"s", `{"schema":"\"int\"","version":7}`, "42201"},
		{"s", `{"schema":"\"int\"","id":7}`, "42205"},
		{"s", `{"schema":"\"` + strings.Repeat("x", 5<<20) + `\""}`, "42209"},
		{"s", body(strings.Replace(schemaA, `"name":"R"`, `"name":"R","doc":"`+strings.Repeat("x", 1<<20)+`"`, 1)), "42209"},
		{"s", `{"schema":7}`, "400"},
		{"s", `[]`, "400"},
		{"s", ``, "400"},
		{"a%00b", `{"schema":"\"int\""}`, "42208"},
		{"a%C2%85b", `{"schema":"\"int\""}`, "42208"},
		{"a%FFb", `{"schema":"\"int\""}`, "42208"},
		{"__GLOBAL", `{"schema":"\"int\""}`, "42208"},
		{"__EMPTY", `{"schema":"\"int\""}`, "42208"},
		{":.ctx:s", `{"schema":"\"int\""}`, "42208"},
		{"", `{"schema":"\"int\""}`, "42208"},
	} {
		status := map[string]int{"42201": 422, "42205": 422, "42208": 422, "42209": 422, "400": 400}[c.code]
		expect(t, s, "POST /subjects/"+c.path+"/versions", c.body, status, refused(c.code))
	}
	expect(t, s, "GET /subjects?deleted=true", "", 200, `[]`)
}

func TestSubjectNames(t *testing.T) {
	log := registrytest.NewLog()
	s := newServer(t, log)
	for _, name := range []string{"a%2Fb", "..", "%3C%22%5C%3E%26", "%E2%80%A8%E6%97%A5", "sp%20ace", ":.:plain"} {
		expect(t, s, "POST /subjects/"+name+"/versions", body(schemaA), 200, `{"id":1}`)
		expect(t, s, "GET /subjects/"+name+"/versions", "", 200, `[1]`)
	}
	expect(t, s, "GET /subjects", "", 200, `["..","<\"\\>&","a/b","plain","sp ace","\u2028日"]`)
	keys := dump(log.Store())
	for _, k := range []string{`"subject":"a/b",`, `"subject":"<\"\\>&",`, "\"subject\":\"\u2028日\",", `"subject":"plain",`} {
		if !strings.Contains(keys, k) {
			t.Errorf("no key with %s in\n%s", k, keys)
		}
	}
}

func TestLookup(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "POST /subjects/s", body(schemaA), 404, refused("40401"))
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	expect(t, s, "POST /subjects/s?normalize=true", body(schemaAB), 200, `{"subject":"s","id":2,"version":2,"schema":`+quoted(schemaAB)+`}`)
	expect(t, s, "POST /subjects/s", body(schemaS), 404, refused("40403"))
	expect(t, s, "POST /subjects/s", `{"schema":"x"}`, 422, refused("42201"))
	expect(t, s, "DELETE /subjects/s/versions/2", "", 200, `2`)
	expect(t, s, "POST /subjects/s", body(schemaAB), 404, refused("40403"))
	expect(t, s, "POST /subjects/s?deleted=true", body(schemaAB), 200, `{"subject":"s","id":2,"version":2,"schema":`+quoted(schemaAB)+`}`)
}

func TestByID(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	ask(t, s, "POST /subjects/r/versions", body(schemaA))
	expect(t, s, "GET /schemas/ids/1", "", 200, `{"schema":`+quoted(schemaA)+`}`)
	expect(t, s, "GET /schemas/ids/1?subject=s&format=&fetchMaxId=true", "", 200, `{"schema":`+quoted(schemaA)+`,"maxId":2}`)
	expect(t, s, "GET /schemas/ids/3", "", 404, refused("40403"))
	expect(t, s, "GET /schemas/ids/3/schema", "", 404, refused("40403"))
	expect(t, s, "GET /schemas/ids/3/subjects", "", 404, refused("40403"))
	expect(t, s, "GET /schemas/ids/3/versions", "", 404, refused("40403"))
	expect(t, s, "GET /schemas/ids/x", "", 404, refused("404"))
	expect(t, s, "GET /schemas/ids/4294967297", "", 404, refused("404"))
	expect(t, s, "GET /schemas/ids/1/subjects", "", 200, `["r","s"]`)
	expect(t, s, "GET /schemas/ids/1/versions", "", 200, `[{"subject":"s","version":1},{"subject":"r","version":1}]`)
	if got := ask(t, s, "GET /schemas/ids/1/schema", "").Body.String(); got != schemaA {
		t.Errorf("bare schema: %s", got)
	}
	expect(t, s, "DELETE /subjects/s", "", 200, `[1,2]`)
	expect(t, s, "GET /schemas/ids/1/subjects", "", 200, `["r"]`)
	expect(t, s, "GET /schemas/ids/1/subjects?deleted=true", "", 200, `["r","s"]`)
	expect(t, s, "GET /schemas/ids/2/subjects", "", 200, `[]`)
	expect(t, s, "GET /schemas/ids/2/versions?deleted=true", "", 200, `[{"subject":"s","version":2}]`)
	expect(t, s, "GET /schemas/ids/2", "", 200, `{"schema":`+quoted(schemaAB)+`}`)
}

func TestVersions(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "GET /subjects/s/versions", "", 404, refused("40401"))
	expect(t, s, "GET /subjects/s/versions/1", "", 404, refused("40401"))
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	one := `{"subject":"s","id":1,"version":1,"schema":` + quoted(schemaA) + `}`
	two := `{"subject":"s","id":2,"version":2,"schema":` + quoted(schemaAB) + `}`
	expect(t, s, "GET /subjects/s/versions/1", "", 200, one)
	expect(t, s, "GET /subjects/s/versions/latest", "", 200, two)
	expect(t, s, "GET /subjects/s/versions/-1", "", 200, two)
	expect(t, s, "GET /subjects/s/versions/3", "", 404, refused("40402"))
	for _, v := range []string{"0", "-2", "x", "2147483648"} {
		expect(t, s, "GET /subjects/s/versions/"+v, "", 422, refused("42202"))
		expect(t, s, "DELETE /subjects/s/versions/"+v, "", 422, refused("42202"))
	}
	if got := ask(t, s, "GET /subjects/s/versions/2/schema", "").Body.String(); got != schemaAB {
		t.Errorf("bare schema: %s", got)
	}
	expect(t, s, "GET /subjects/s/versions/3/schema", "", 404, refused("40402"))
	expect(t, s, "GET /subjects/s/versions/1/referencedby", "", 200, `[]`)
	expect(t, s, "GET /subjects/s/versions/9/referencedby", "", 404, refused("40402"))
	expect(t, s, "GET /schemas", "", 200, `[`+one+`,`+two+`]`)
	expect(t, s, "GET /schemas?latestOnly=true", "", 200, `[`+two+`]`)
	expect(t, s, "GET /schemas?subjectPrefix=x", "", 200, `[]`)
	expect(t, s, "GET /schemas?offset=1&limit=5", "", 200, `[`+two+`]`)

	expect(t, s, "DELETE /subjects/s/versions/1", "", 200, `1`)
	expect(t, s, "GET /subjects/s/versions", "", 200, `[2]`)
	expect(t, s, "GET /subjects/s/versions?deleted=true", "", 200, `[1,2]`)
	expect(t, s, "GET /subjects/s/versions?deletedOnly=true", "", 200, `[1]`)
	expect(t, s, "GET /subjects/s/versions?deletedAsNegative=true", "", 200, `[-1,2]`)
	expect(t, s, "GET /subjects/s/versions?deleted=true&offset=1&limit=1", "", 200, `[2]`)
	expect(t, s, "GET /subjects/s/versions?offset=9", "", 200, `[]`)
	expect(t, s, "GET /subjects/s/versions/1", "", 404, refused("40402"))
	expect(t, s, "GET /subjects/s/versions/1?deleted=true", "", 200, one)
	expect(t, s, "GET /schemas?deleted=true", "", 200, `[`+one+`,`+two+`]`)
}

func TestSubjects(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	for _, name := range []string{"a-key", "a-value", "b-value"} {
		ask(t, s, "POST /subjects/"+name+"/versions", body(schemaA))
	}
	ask(t, s, "DELETE /subjects/a-key", "")
	expect(t, s, "GET /subjects", "", 200, `["a-value","b-value"]`)
	expect(t, s, "GET /subjects?deleted=true", "", 200, `["a-key","a-value","b-value"]`)
	expect(t, s, "GET /subjects?deletedOnly=true", "", 200, `["a-key"]`)
	expect(t, s, "GET /subjects?deleted=true&subjectPrefix=a", "", 200, `["a-key","a-value"]`)
	expect(t, s, "GET /subjects?subjectPrefix=%3A*%3A", "", 200, `["a-value","b-value"]`)
	expect(t, s, "GET /subjects?subjectPrefix=%3A.%3Ab", "", 200, `["b-value"]`)
	expect(t, s, "GET /subjects?limit=1", "", 200, `["a-value"]`)
}

func TestDelete(t *testing.T) {
	log := registrytest.NewLog()
	s := newServer(t, log)
	expect(t, s, "DELETE /subjects/s", "", 404, refused("40401"))
	expect(t, s, "DELETE /subjects/s?permanent=true", "", 404, refused("40401"))
	expect(t, s, "DELETE /subjects/s/versions/1", "", 404, refused("40401"))
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	expect(t, s, "DELETE /subjects/s/versions/3", "", 404, refused("40402"))
	expect(t, s, "DELETE /subjects/s?permanent=true", "", 404, refused("40405"))
	expect(t, s, "DELETE /subjects/s/versions/1?permanent=true", "", 404, refused("40407"))
	expect(t, s, "DELETE /subjects/s/versions/latest", "", 200, `2`)
	expect(t, s, "DELETE /subjects/s/versions/2", "", 404, refused("40406"))
	expect(t, s, "DELETE /subjects/s", "", 200, `[1]`)
	expect(t, s, "DELETE /subjects/s", "", 404, refused("40404"))
	expect(t, s, "DELETE /subjects/s/versions/latest", "", 404, refused("40402"))
	expect(t, s, "GET /subjects/s/versions/latest", "", 404, refused("40401"))

	// A deleted schema comes back as a new version with its old id, and takes the place of
	// the deleted one.
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`)
	expect(t, s, "GET /subjects/s/versions?deleted=true", "", 200, `[2,3]`)
	expect(t, s, "DELETE /subjects/s/versions/2?permanent=true", "", 200, `2`)
	expect(t, s, "GET /schemas/ids/2", "", 404, refused("40403"))
	expect(t, s, "PUT /config/s", `{"compatibility":"NONE"}`, 200, `{"compatibility":"NONE"}`)
	expect(t, s, "PUT /mode/s", `{"mode":"READWRITE"}`, 200, `{"mode":"READWRITE"}`)
	expect(t, s, "DELETE /subjects/s", "", 200, `[3]`)
	expect(t, s, "DELETE /subjects/s?permanent=true", "", 200, `[3]`)
	expect(t, s, "GET /subjects?deleted=true", "", 200, `[]`)
	expect(t, s, "GET /config/s", "", 404, refused("40408"))
	expect(t, s, "GET /mode/s", "", 404, refused("40409"))

	// No id is given twice, even when all that told of it is gone.
	log.Store().Compact(true)
	s = newServer(t, log.Store().Log())
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":3}`)
	expect(t, s, "GET /subjects/s/versions", "", 200, `[1]`)
}

func TestCompatibility(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	path := "POST /compatibility/subjects/s/versions"
	expect(t, s, path, body(schemaA), 200, `{"is_compatible":true}`)
	expect(t, s, path+"/latest", body(schemaA), 200, `{"is_compatible":true}`)
	expect(t, s, path+"/1", body(schemaA), 404, refused("40402"))
	expect(t, s, path+"/x", body(schemaA), 422, refused("42202"))
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	ask(t, s, "POST /subjects/s/versions", body(schemaAB))
	expect(t, s, path+"/latest?normalize=true", body(schemaA), 200, `{"is_compatible":true}`)
	expect(t, s, path, body(schemaS), 200, `{"is_compatible":false}`)
	expect(t, s, path+"/1", body(schemaS), 200, `{"is_compatible":false}`)
	expect(t, s, path+"/1", body("x"), 422, refused("42201"))
	w := ask(t, s, path+"/latest?verbose=true", body(schemaS)).Body.String()
	if !strings.Contains(w, `"is_compatible":false,"messages":["version 2: a: `) {
		t.Errorf("verbose check: %s", w)
	}
	ask(t, s, "DELETE /subjects/s/versions/1", "")
	expect(t, s, path+"/1", body(schemaS), 404, refused("40402"))
}

// TestLevels registers a chain of schemas under each level. One field is added without a
// default, which older data cannot fill, or taken away without one, which older readers
// cannot miss.
func TestLevels(t *testing.T) {
	a, ab, abc := record("a int=0"), record("a int=0", "b int"), record("a int=0", "b int", "c int=0")
	for _, c := range []struct {
		level  registry.Level
		chain  []string
		refuse string
	}{
		{registry.None, []string{a}, ""},
		{registry.Backward, []string{a}, ab},
		{registry.Backward, []string{ab}, ""},
		{registry.BackwardTransitive, []string{a}, ab},
		{registry.Forward, []string{ab}, a},
		{registry.Forward, []string{a, ab}, ""},
		{registry.ForwardTransitive, []string{ab, abc}, a},
		{registry.Full, []string{ab, abc}, a},
		{registry.Full, []string{a}, ab},
		{registry.FullTransitive, []string{ab, abc}, a},
	} {
		s := newServer(t, registrytest.NewLog())
		level := string(c.level)
		expect(t, s, "PUT /config", `{"compatibility":"`+level+`"}`, 200, `{"compatibility":"`+level+`"}`)
		for _, schema := range c.chain {
			if w := ask(t, s, "POST /subjects/s/versions", body(schema)); w.Code != 200 {
				t.Errorf("%s refuses %s: %s", c.level, schema, w.Body)
			}
		}
		if c.refuse != "" {
			expect(t, s, "POST /subjects/s/versions", body(c.refuse), 409, refused("40901"))
		}
	}
}

// TestTransitive: b was an int, then gone, and comes back as a string. The last version
// does not mind; the first does.
func TestTransitive(t *testing.T) {
	ab, a, as := record("a int", "b int=0"), record("a int"), record("a int", "b string=\"\"")
	for level, status := range map[string]int{
		"BACKWARD": 200, "FORWARD": 200, "FULL": 200,
		"BACKWARD_TRANSITIVE": 409, "FORWARD_TRANSITIVE": 409, "FULL_TRANSITIVE": 409,
	} {
		s := newServer(t, registrytest.NewLog())
		ask(t, s, "PUT /config/s", `{"compatibility":"`+level+`"}`)
		ask(t, s, "POST /subjects/s/versions", body(ab))
		ask(t, s, "POST /subjects/s/versions", body(a))
		if w := ask(t, s, "POST /subjects/s/versions", body(as)); w.Code != status {
			t.Errorf("%s: status %d, want %d: %s", level, w.Code, status, w.Body)
		}
	}
}

func TestConfig(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "GET /config", "", 200, `{"compatibilityLevel":"BACKWARD"}`)
	expect(t, s, "DELETE /config", "", 200, `{"compatibilityLevel":"BACKWARD"}`)
	expect(t, s, "GET /config/s", "", 404, refused("40408"))
	expect(t, s, "GET /config/s?defaultToGlobal=true", "", 200, `{"compatibilityLevel":"BACKWARD"}`)
	expect(t, s, "DELETE /config/s", "", 404, refused("40401"))
	expect(t, s, "PUT /config", `{"compatibility":"full"}`, 200, `{"compatibility":"FULL"}`)
	expect(t, s, "GET /config/s?defaultToGlobal=true", "", 200, `{"compatibilityLevel":"FULL"}`)
	expect(t, s, "PUT /config/s", `{"compatibility":"NONE","normalize":null}`, 200, `{"compatibility":"NONE"}`)
	expect(t, s, "GET /config/s", "", 200, `{"compatibilityLevel":"NONE"}`)
	expect(t, s, "GET /config/:.:", "", 200, `{"compatibilityLevel":"FULL"}`)
	expect(t, s, "PUT /config/s", `{"compatibility":"SOME"}`, 422, refused("42203"))
	expect(t, s, "PUT /config/s", `{}`, 422, refused("42203"))
	expect(t, s, "PUT /config/s", `{"compatibility":"NONE","alias":"x"}`, 422, refused("42205"))
	expect(t, s, "PUT /config/s%01", `{"compatibility":"NONE"}`, 422, refused("42208"))
	expect(t, s, "PUT /config/:.ctx:", `{"compatibility":"NONE"}`, 422, refused("42208"))
	expect(t, s, "DELETE /config/s", "", 200, `{"compatibilityLevel":"NONE"}`)
	expect(t, s, "GET /config/s", "", 404, refused("40408"))
	expect(t, s, "DELETE /config", "", 200, `{"compatibilityLevel":"FULL"}`)
	expect(t, s, "GET /config", "", 200, `{"compatibilityLevel":"BACKWARD"}`)
}

func TestMode(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	expect(t, s, "GET /mode", "", 200, `{"mode":"READWRITE"}`)
	expect(t, s, "GET /mode/s", "", 404, refused("40409"))
	expect(t, s, "GET /mode/s?defaultToGlobal=true", "", 200, `{"mode":"READWRITE"}`)
	expect(t, s, "DELETE /mode/s", "", 404, refused("40401"))
	expect(t, s, "PUT /mode/s", `{"mode":"SOME"}`, 422, refused("42204"))
	expect(t, s, "PUT /mode/s", `{"mode":"FORWARD"}`, 422, refused("42204"))
	expect(t, s, "PUT /mode/s%01", `{"mode":"IMPORT"}`, 422, refused("42208"))
	ask(t, s, "POST /subjects/s/versions", body(schemaA))
	expect(t, s, "PUT /mode/s", `{"mode":"IMPORT"}`, 422, refused("42205"))
	expect(t, s, "PUT /mode", `{"mode":"IMPORT"}`, 422, refused("42205"))

	expect(t, s, "PUT /mode", `{"mode":"readonly"}`, 200, `{"mode":"READONLY"}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 200, `{"id":1}`) // known already
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 422, refused("42205"))
	expect(t, s, "DELETE /subjects/s", "", 422, refused("42205"))
	expect(t, s, "DELETE /subjects/s/versions/1", "", 422, refused("42205"))
	expect(t, s, "PUT /mode/s", `{"mode":"READWRITE"}`, 200, `{"mode":"READWRITE"}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":2}`)
	expect(t, s, "PUT /mode/s?force=true", `{"mode":"IMPORT"}`, 200, `{"mode":"IMPORT"}`)
	expect(t, s, "DELETE /mode/s", "", 200, `{"mode":"IMPORT"}`)
	expect(t, s, "DELETE /mode", "", 200, `{"mode":"READONLY"}`)
	expect(t, s, "GET /mode", "", 200, `{"mode":"READWRITE"}`)

	expect(t, s, "PUT /mode/x", `{"mode":"READONLY"}`, 200, `{"mode":"READONLY"}`)
	expect(t, s, "PUT /mode?force=true", `{"mode":"FORWARD"}`, 200, `{"mode":"FORWARD"}`)
	expect(t, s, "DELETE /mode?recursive=true", "", 200, `{"mode":"FORWARD"}`)
	expect(t, s, "GET /mode/x", "", 404, refused("40409"))
}

func TestImport(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	with := func(schema string, rest string) string { return strings.TrimSuffix(body(schema), "}") + rest + "}" }
	expect(t, s, "PUT /mode", `{"mode":"IMPORT"}`, 200, `{"mode":"IMPORT"}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaA), 422, refused("42205"))
	expect(t, s, "POST /subjects/s/versions", with(schemaA, `,"id":41,"version":3`), 200, `{"id":41}`)
	expect(t, s, "POST /subjects/s/versions", with(schemaS, `,"id":42,"version":2`), 200, `{"id":42}`)
	expect(t, s, "POST /subjects/s/versions", with(schemaAB, `,"id":42,"version":4`), 422, refused("42205"))
	expect(t, s, "POST /subjects/s/versions", with(schemaAB, `,"id":43,"version":3`), 422, refused("42205"))
	expect(t, s, "GET /subjects/s/versions", "", 200, `[2,3]`)
	expect(t, s, "DELETE /mode", "", 200, `{"mode":"IMPORT"}`)
	expect(t, s, "POST /subjects/s/versions", body(schemaAB), 200, `{"id":43}`)
	expect(t, s, "GET /subjects/s/versions", "", 200, `[2,3,4]`)
}

func TestContentTypes(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	const v1, plain = "application/vnd.schemaregistry.v1+json", "application/json"
	for accept, want := range map[string]string{
		"":                                 v1,
		"*/*":                              v1,
		plain:                              plain,
		"application/*;q=0.1, " + plain:    plain,
		"text/html, */*;q=0.8":             v1,
		v1 + ";q=0.2, " + plain + ";q=0.1": v1,
		"application/vnd.schemaregistry+json; q=0.9, " + plain + "; q=0.5": "application/vnd.schemaregistry+json",
		v1 + ";q=0, " + plain + ";q=0.1":                                   plain,
		"text/html":                                                        "406",
		plain + ";q=0":                                                     "406",
	} {
		r := httptest.NewRequest("GET", "/subjects", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if want == "406" {
			if w.Code != 406 || w.Header().Get("Content-Type") != v1 {
				t.Errorf("Accept %q: %d %s", accept, w.Code, w.Header())
			}
		} else if got := w.Header().Get("Content-Type"); got != want || w.Code != 200 {
			t.Errorf("Accept %q: %d %q, want %q", accept, w.Code, got, want)
		}
	}
	for contentType, status := range map[string]int{
		"": 200, v1: 200, plain: 200, plain + "; charset=utf-8": 200, "application/octet-stream": 200,
		"application/vnd.schemaregistry+json": 200,
		"text/plain":                          415, "application/x-www-form-urlencoded": 415, "multipart/form-data": 415, "bad type": 415,
	} {
		r := httptest.NewRequest("POST", "/subjects/s/versions", strings.NewReader(body(schemaA)))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("Content-Type %q: %d, want %d", contentType, w.Code, status)
		}
	}
}

func TestForeignSite(t *testing.T) {
	s := newServer(t, registrytest.NewLog())
	for _, what := range []string{"POST /subjects/s/versions", "DELETE /subjects/s", "PUT /config", "DELETE /mode"} {
		method, path, _ := strings.Cut(what, " ")
		r := httptest.NewRequest(method, path, strings.NewReader(body(schemaA)))
		r.Header.Set("Origin", "https://evil.example")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 403 {
			t.Errorf("%s from another site: %d", what, w.Code)
		}
	}
	expect(t, s, "GET /subjects?deleted=true", "", 200, `[]`)
}
