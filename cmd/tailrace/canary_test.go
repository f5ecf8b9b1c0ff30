package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// secretPlaces are the places of a configuration that hold secrets, as paths of yaml names,
// found by their type: one that is added later is among them.
func secretPlaces(path string, t reflect.Type) (places []string) {
	switch {
	case t == reflect.TypeFor[config.Secret]():
		return []string{path}
	case t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		return secretPlaces(path, t.Elem())
	case t.Kind() != reflect.Struct:
		return nil
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		places = append(places, secretPlaces(strings.TrimPrefix(path+"."+name, "."), t.Field(i).Type)...)
	}
	return places
}

// canaryOf are the canaries, by place. Each is long enough for a token and an HMAC key, and
// has what must be escaped in URLs.
var canaryOf = map[string]string{
	"broker.kafka.sasl.password":             "canary-sasl/p+w=0123456789",
	"registry.password":                      "canary-registry/p+w=01234",
	"http.token":                             "canary-http/t+k=0123456789",
	"captures.postgres.url":                  "canary-source/p+w=0123456",
	"captures.postgres.columns.mask.hmac":    "canary-hmac/k+y=0123456789",
	"sinks.postgres.url":                     "canary-target/p+w=0123456",
	"sinks.webhook.url":                      "canary-hookurl/k+y=012345",
	"sinks.webhook.headers":                  "canary-header/t+k=0123456",
	"sinks.webhook.secrets":                  "canary-signing/k+y=012345",
	"the key of a certificate, of its file":  "", // is filled in by the test
	"a password that is wrong, of a command": "canary-wrong/p+w=01234567",
}

// forms are the ways in which a canary may be written.
func forms(canary string) []string {
	out := []string{canary, url.QueryEscape(canary), url.PathEscape(canary), url.UserPassword("", canary).String()[1:], hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary)))}
	for pad := range 3 { // in the midst of something longer
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := e.EncodeToString([]byte(strings.Repeat("x", pad) + canary + "xxx"))
			out = append(out, text[4:len(text)-8])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// canaryRig is a configuration in which every secret is a canary.
type canaryRig struct {
	*testing.T
	*sightings
	pg             *testenv.Postgres
	source, target string // databases
	dir, data      string
	byFile         bool
	instance       *instance
	name           string
	answers        atomic.Int32 // what the webhook answers
}

// ref writes a reference to a secret: to the environment, or to a file.
func (r *canaryRig) ref(place, value string) string {
	r.Helper()
	name := "CANARY_" + strings.ToUpper(regexp.MustCompile(`[^a-z]`).ReplaceAllString(place, "_"))
	if !r.byFile {
		r.Setenv(name, value)
		return "${env:" + name + "}"
	}
	file := filepath.Join(r.dir, name)
	if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
		r.Fatal(err)
	}
	return "${file:" + file + "}"
}

// role makes a user of the database whose password is a canary, and returns its URL.
func (r *canaryRig) role(place, db string) string {
	r.Helper()
	name := strings.ReplaceAll(testenv.Unique("canary"), "-", "_")
	sql(r.T, r.pg, db, fmt.Sprintf("CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'", name, canaryOf[place]))
	r.Cleanup(func() { _ = r.pg.Exec(r.Context(), db, "DROP ROLE IF EXISTS "+name) })
	u, err := url.Parse(r.pg.AdminURL(db))
	if err != nil {
		r.Fatal(err)
	}
	u.User = url.UserPassword(name, canaryOf[place])
	return u.String()
}

func newCanaryRig(t *testing.T, byFile bool) *canaryRig {
	t.Helper()
	r := &canaryRig{T: t, sightings: &sightings{}, pg: testenv.NewPostgres(t, testenv.PGOptions{}), dir: t.TempDir(), byFile: byFile, name: testenv.Unique("seen")}
	r.source, r.target, r.data = r.pg.CreateDatabase(t), r.pg.CreateDatabase(t), filepath.Join(t.TempDir(), "data")
	cert, key := testenv.WriteCertificate(t, r.dir, "localhost")
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	canaryOf["the key of a certificate, of its file"] = strings.Split(string(secret), "\n")[1] // base64 of it
	for _, canary := range canaryOf {
		r.canaries = append(r.canaries, forms(canary)...)
	}
	sql(t, r.pg, r.source, "CREATE TABLE orders (id bigint PRIMARY KEY, v int, mail text)", "INSERT INTO orders SELECT i, i, 'm' FROM generate_series(1, 10) i")
	sql(t, r.pg, r.target, "CREATE TABLE orders (id bigint PRIMARY KEY, v int CHECK (v <> 666), mail text)")
	r.answers.Store(http.StatusNoContent)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(r.answers.Load())) }))
	t.Cleanup(hook.Close)
	r.instance = &instance{file: filepath.Join(r.dir, "tailrace.yaml"), http: freeAddress(t), scheme: "https"}
	text := fmt.Sprintf(`broker: { embedded: { dir: %[1]q, listen: %[2]q, min_free: 1 } }
registry: { serve: %[3]q, topic: schemas, user: ann, password: "%[4]s", tls: { cert: %[5]q, key: %[6]q } }
http: { listen: %[7]q, token: "%[8]s", tls: { cert: %[5]q, key: %[6]q } }
log: { level: debug }
captures:
  - name: %[9]s
    compression: none
    postgres: { url: "%[10]s", columns: [ { table: public.orders, mask: { mail: { hmac: "%[11]s" } } } ] }
sinks:
  - { name: %[9]s-db, from: %[9]s, mode: keys, dead_letters: park, postgres: { url: "%[12]s" } }
  - name: %[9]s-hook
    from: %[9]s
    dead_letters: park
    webhook: { url: "%[13]s/x?key=%[14]s", headers: { authorization: "Bearer %[15]s" }, secrets: [ "%[16]s" ], allow: [127.0.0.1/32], timeout: 2s }
`, r.data, freeAddress(t), freeAddress(t), r.ref("registry.password", canaryOf["registry.password"]), cert, key, r.instance.http, r.ref("http.token", canaryOf["http.token"]), r.name,
		r.ref("captures.postgres.url", r.role("captures.postgres.url", r.source)), r.ref("captures.postgres.columns.mask.hmac", canaryOf["captures.postgres.columns.mask.hmac"]),
		r.ref("sinks.postgres.url", r.role("sinks.postgres.url", r.target)), hook.URL, r.ref("sinks.webhook.url", url.QueryEscape(canaryOf["sinks.webhook.url"])),
		r.ref("sinks.webhook.headers", canaryOf["sinks.webhook.headers"]), r.ref("sinks.webhook.secrets", canaryOf["sinks.webhook.secrets"]))
	if err := os.WriteFile(r.instance.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pin, err := httpapi.PinTo(cert)
	if err != nil {
		t.Fatal(err)
	}
	r.instance.client = &http.Client{Transport: bearer{&http.Transport{TLSClientConfig: pin}, canaryOf["http.token"]}}
	return r
}

// bearer is a transport that says who it is.
type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// command runs one and looks at what it writes.
func (r *canaryRig) command(code int, args ...string) string {
	r.Helper()
	got, stdout, stderr := execute(append(args, "-f", r.instance.file)...)
	if got != code {
		r.Errorf("%v ended with %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	r.look("command", []byte(stdout+stderr))
	return stdout
}

// outside looks at what others on the machine, and at the databases, can see.
func (r *canaryRig) outside(p *process) {
	r.Helper()
	line, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/cmdline")
	if err != nil {
		r.Fatal(err)
	}
	r.look("process list", line)
	for _, path := range []string{"/status", "/metrics", "/readyz"} {
		_, body := p.get(path)
		if body == "" {
			r.Errorf("%s says nothing", path)
		}
		r.look(path, []byte(body))
	}
	r.look("activity", []byte(query(r.T, r.pg, r.source, "SELECT string_agg(concat_ws(' ', application_name, query, backend_type), E'\n') FROM pg_stat_activity")))
}

// A secret, wherever it stands in a configuration, is in no log, topic, metric, status, dead
// letter, answer of a command, or list of processes, whatever fails; what may be seen is.
func TestSecretsAreNowhere(t *testing.T) {
	places := secretPlaces("", reflect.TypeFor[config.Config]())
	for _, place := range places {
		if canaryOf[place] == "" {
			t.Errorf("no canary is in %s", place)
		}
	}
	if len(places) < 9 {
		t.Fatalf("only %d places hold secrets: %q", len(places), places)
	}
	for name, byFile := range map[string]bool{"env": false, "file": true} {
		t.Run(name, func(t *testing.T) {
			r := newCanaryRig(t, byFile)
			r.work()
			if !byFile { // it waits for long, and references are the same everywhere
				r.kafka()
			}
			for _, s := range r.seen {
				t.Errorf("%s: %s", s.where, s.what)
			}
			r.control()
		})
	}
}

// work runs a process, has what can fail fail, and asks everything.
func (r *canaryRig) work() {
	r.command(0, "config", "validate")
	r.command(0, "doctor")
	p := r.instance.start(r.T)
	p.ready()
	if resp, err := http.Get("http://" + r.instance.http + "/status"); err == nil { // without TLS, in clear
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		r.look("plain HTTP", body)
		if resp.StatusCode == http.StatusOK {
			r.Error("it answers without TLS")
		}
	}
	r.answers.Store(http.StatusInternalServerError)
	sql(r.T, r.pg, r.source, "INSERT INTO orders VALUES (100, 666, 'x')", "UPDATE orders SET v = v + 1 WHERE id < 5")
	p.until("parked by one sink, refused for now by the other", func() bool {
		_, body := p.get("/status")
		return strings.Contains(body, `"letters": 1`) && strings.Contains(p.log.String(), "500 Internal Server Error")
	})
	r.answers.Store(http.StatusUnprocessableEntity)
	p.until("parked by the other too", func() bool {
		_, body := p.get("/metrics")
		return regexp.MustCompile(`tailrace_dlq_parked_records\{sink="` + r.name + `-hook"\} [1-9]`).MatchString(body)
	})
	r.outside(p)
	r.command(0, "capture", "status")
	r.command(0, "lag")
	r.command(0, "doctor")
	r.command(0, "grants")
	r.command(0, "backfill", "list")
	r.command(0, "audit", "list")
	topics := r.command(0, "topic", "list")
	r.command(0, "topic", "tail", r.name+".public.orders", "--to-end", "--from", "beginning", "-o", "json")
	if !strings.Contains(topics, r.name+".public.orders") {
		r.Errorf("topics: %s", topics)
	}
	for _, sink := range []string{r.name + "-db", r.name + "-hook"} {
		list := r.command(0, "dlq", "list", "--keys", "--sink", sink)
		position := regexp.MustCompile(`\S+/\d+@\d+`).FindString(list)
		r.command(0, "dlq", "show", position, "--sink", sink)
		r.command(1, "dlq", "retry", "--sink", sink, "-o", "json")
	}
	// The databases take nobody any more: the process waits, and says why.
	sql(r.T, r.pg, r.source, "ALTER ROLE "+r.user(r.source)+" PASSWORD 'other'", "ALTER ROLE "+r.user(r.target)+" PASSWORD 'other'",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'canary%'")
	r.command(0, "dlq", "retry", "--sink", r.name+"-db", "--wait", "1ms") // it has the sink use its connection
	p.until("stopped or waiting for its databases", func() bool { return strings.Count(p.log.String(), "password authentication failed") >= 2 })
	r.command(4, "doctor")
	r.outside(p)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	r.look("log", []byte(p.log.String()))
	r.look("database's log", r.readFile(filepath.Join(r.pg.Dir, "server.log")))
	r.disk(r.T, r.data)
	broken := strings.Replace(string(r.readFile(r.instance.file)), "registry: {", "registry: { toppic: x, ", 1)
	if err := os.WriteFile(r.instance.file, []byte(broken), 0o600); err != nil {
		r.Fatal(err)
	}
	r.command(2, "config", "validate")
	r.command(2, "run")
}

func (r *canaryRig) readFile(name string) []byte {
	r.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

// user is the role with a canary for one of the databases.
func (r *canaryRig) user(db string) string {
	r.Helper()
	at := "captures.postgres.url"
	if db == r.target {
		at = "sinks.postgres.url"
	}
	ref := regexp.MustCompile(`\$\{(env|file):([^}]*)\}`).FindStringSubmatch(r.ref2(at))
	text := os.Getenv(ref[2])
	if ref[1] == "file" {
		text = strings.TrimSpace(string(r.readFile(ref[2])))
	}
	u, err := url.Parse(text)
	if err != nil {
		r.Fatal(err)
	}
	return u.User.Username()
}

// ref2 is the reference that stands at a place already.
func (r *canaryRig) ref2(place string) string {
	name := "CANARY_" + strings.ToUpper(regexp.MustCompile(`[^a-z]`).ReplaceAllString(place, "_"))
	if r.byFile {
		return "${file:" + filepath.Join(r.dir, name) + "}"
	}
	return "${env:" + name + "}"
}

// kafka runs a process whose broker takes nobody, with a password for it.
func (r *canaryRig) kafka() {
	file := filepath.Join(r.dir, "kafka.yaml")
	text := fmt.Sprintf("broker: { kafka: { brokers: [%q], sasl: { mechanism: plain, user: bob, password: \"%s\" } } }\nregistry: { serve: %q }\nhttp: { listen: %q }\nlog: { level: debug }\ncaptures:\n  - { name: k, postgres: { url: \"%s\" } }\n",
		freeAddress(r.T), r.ref("broker.kafka.sasl.password", canaryOf["broker.kafka.sasl.password"]), freeAddress(r.T), freeAddress(r.T),
		r.ref("wrong", "postgres://u:"+url.QueryEscape(canaryOf["a password that is wrong, of a command"])+"@"+freeAddress(r.T)+"/d"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	p := (&instance{file: file}).start(r.T)
	p.until("waiting for its database", func() bool { return strings.Contains(p.log.String(), "will start again") })
	_ = p.cmd.Process.Kill()
	<-p.done
	r.look("log", []byte(p.log.String()))
	r.instance.file = file
	r.command(4, "doctor")
}

// control sees that what may be seen is found by the same search, wherever it looks.
func (r *canaryRig) control() {
	c := &canaryRig{T: r.T, sightings: &sightings{}, pg: r.pg, source: r.source}
	c.canaries = append(forms(r.name), strings.ReplaceAll(r.name, "-", "_"))
	c.disk(r.T, r.data)
	if c.in("file") == 0 {
		r.Error("the name of the capture is not found on the disk: the search is blind")
	}
	for _, canary := range []string{"canary-a/b+c="} {
		for name, text := range map[string]string{
			"plain": canary, "in a URL": "https://x?key=" + url.QueryEscape(canary), "Basic": base64.StdEncoding.EncodeToString([]byte("ann:" + canary + "123")),
			"hexadecimal": fmt.Sprintf("%x", canary), "JSON": strconv.Quote("x" + canary),
		} {
			s := &sightings{canaries: forms(canary)}
			if s.look("x", []byte("before "+text+" after")); len(s.seen) == 0 {
				r.Errorf("%s: %q is not found in %q", name, canary, text)
			}
		}
	}
}
