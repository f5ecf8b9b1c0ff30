package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output anew; read the difference")

// execute runs one command line in this process.
func execute(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// Each command line with its exit code, and what it writes to both outputs.
func TestCommandLines(t *testing.T) {
	s := httptest.NewServer(httpapi.New(func() httpapi.Status { return status(true) }, nil, &httpapi.Access{}))
	defer s.Close()
	bad := httptest.NewServer(httpapi.New(func() httpapi.Status { return status(false) }, nil, &httpapi.Access{}))
	defer bad.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	good, three := "testdata/good.yaml", "testdata/three.yaml"
	ready, unready := strings.TrimPrefix(s.URL, "http://"), strings.TrimPrefix(bad.URL, "http://")
	elsewhere := strings.TrimPrefix(other.URL, "http://")
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"help", nil, 0},
		{"unknown-command", []string{"rnu"}, 2},
		{"unknown-subcommand", []string{"topic", "lsit"}, 2},
		{"unknown-flag", []string{"run", "--fiel", "x"}, 2},
		{"bad-flag-value", []string{"topic", "tail", "t", "--count", "many"}, 2},
		{"missing-argument", []string{"topic", "tail"}, 2},
		{"extra-argument", []string{"version", "please"}, 2},
		{"unknown-output", []string{"version", "-o", "xml"}, 2},
		{"unknown-level", []string{"version", "--log-level", "loud"}, 2},
		{"bad-from", []string{"topic", "tail", "t", "--from", "yesterday"}, 2},
		{"no-file", []string{"run", "-f", "testdata/nowhere.yaml"}, 2},
		{"validate", []string{"config", "validate", "-f", good}, 0},
		{"validate-json", []string{"config", "validate", "-f", good, "-o", "json"}, 0},
		{"three-mistakes", []string{"config", "validate", "-f", three}, 2},
		{"three-mistakes-json", []string{"config", "validate", "-f", three, "-o", "json"}, 2},
		{"three-mistakes-run", []string{"run", "-f", three}, 2},
		{"three-mistakes-run-json", []string{"run", "-f", three, "-o", "json"}, 2},
		{"not-loopback", []string{"config", "validate", "-f", good, "--http-listen", "0.0.0.0:9090"}, 2},
		{"status", []string{"capture", "status", "--http-listen", ready}, 0},
		{"status-json", []string{"capture", "status", "--http-listen", ready, "-o", "json"}, 0},
		{"status-not-ready", []string{"capture", "status", "--http-listen", unready}, 0},
		{"status-check", []string{"capture", "status", "--http-listen", unready, "--check"}, 4},
		{"status-check-json", []string{"capture", "status", "--http-listen", unready, "--check", "-o", "json"}, 4},
		{"status-port-0", []string{"capture", "status", "-f", good}, 2},
		{"status-other-server", []string{"capture", "status", "--http-listen", elsewhere}, 3},
		{"tail-port-0", []string{"topic", "tail", "t", "-f", good}, 2},
		{"lag", []string{"lag", "--http-listen", ready}, 0},
		{"lag-max", []string{"lag", "--max", "30s", "--http-listen", ready}, 0},
		{"lag-max-json", []string{"lag", "--max", "30s", "--http-listen", ready, "-o", "json"}, 0},
		{"lag-above", []string{"lag", "--max", "50ms", "--http-listen", ready}, 4},
		{"lag-above-json", []string{"lag", "--max", "50ms", "--http-listen", ready, "-o", "json"}, 4},
		{"lag-not-running", []string{"lag", "--max", "30s", "--http-listen", unready}, 4},
		{"lag-not-running-unchecked", []string{"lag", "--http-listen", unready}, 0},
		{"lag-negative", []string{"lag", "--max", "-1s", "--http-listen", ready}, 2},
		{"lag-other-server", []string{"lag", "--max", "30s", "--http-listen", elsewhere}, 3},
		{"grants", []string{"grants", "--role", "tailrace", "--tables", "public.orders,sales.*", "--publication", "shop"}, 0},
		{"grants-undo", []string{"grants", "--role", "tailrace", "--tables", "public.orders,sales.*", "--publication", "shop", "--undo"}, 0},
		{"grants-json", []string{"grants", "--role", "tailrace", "--tables", "public.orders", "--existing", "-o", "json"}, 0},
		{"grants-sink", []string{"grants", "--for", "sink", "--role", "applier", "--tables", "public.orders", "--schema", "copy"}, 0},
		{"grants-file", []string{"grants", "-f", "testdata/doctor.yaml"}, 0},
		{"grants-file-sink", []string{"grants", "-f", "testdata/doctor.yaml", "--for", "sink", "--name", "copy", "-o", "json"}, 0},
		{"grants-no-name", []string{"grants", "-f", "testdata/doctor.yaml", "--name", "erp"}, 2},
		{"grants-no-role", []string{"grants", "--tables", "public.orders"}, 2},
		{"grants-no-schema", []string{"grants", "--role", "x", "--tables", "orders"}, 2},
		{"grants-hostile", []string{"grants", "--role", "x\";\nDROP TABLE t; --$do$'", "--tables", "a'$do$.b,c%_!*.d"}, 0},
		{"doctor-offline", []string{"doctor", "--offline", "-f", "testdata/doctor.yaml"}, 4},
		{"doctor-offline-json", []string{"doctor", "--offline", "-f", "testdata/doctor.yaml", "-o", "json"}, 4},
		{"doctor-webhook", []string{"doctor", "--offline", "-f", "testdata/doctor-webhook.yaml"}, 4},
		{"grants-webhook", []string{"grants", "--for", "sink", "-f", "testdata/doctor-webhook.yaml", "--name", "good"}, 2},
		{"doctor-offline-good", []string{"doctor", "--offline", "-f", good}, 0},
		{"doctor-invalid", []string{"doctor", "-f", three}, 2},
		{"doctor-depths", []string{"doctor", "-f", good, "--offline", "--deep"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := execute(c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			got := "stdout:\n" + stdout + "stderr:\n" + stderr
			for _, address := range []string{ready, unready, elsewhere} {
				got = strings.ReplaceAll(got, address, "HOST:PORT")
			}
			golden(t, c.name+".txt", got)
		})
	}
}

// status is a process's answer with one capture that works, and one that does not.
func status(ready bool) httpapi.Status {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := httpapi.Status{
		Version: "1.2.3", Started: at, Ready: ready,
		Broker:   httpapi.BrokerStatus{Kind: "embedded", Address: "127.0.0.1:9092"},
		Registry: httpapi.RegistryStatus{Kind: "served", URL: "http://127.0.0.1:8081", State: httpapi.Running},
		Captures: []httpapi.Capture{{
			Name: "shop", Prefix: "shop", State: httpapi.Running, Since: at, Position: "0/1A2B", Lag: 0.04,
			LastEvent: &at, Events: map[string]uint64{"create": 3, "delete": 1},
		}},
	}
	s.Sinks = []httpapi.Sink{{
		Name: "warehouse", From: "shop", State: httpapi.Running, Since: at, Lag: 0.06,
		LastEvent: &at, Events: map[string]uint64{"create": 3, "delete": 1}, Transactions: 2,
	}}
	if !ready {
		s.Causes = []string{`capture "erp" is waiting: connect: no route`}
		s.Captures = append(s.Captures, httpapi.Capture{
			Name: "erp", Prefix: "erp", State: httpapi.Waiting, Since: at, Restarts: 12, RetryAt: &at,
			Error: &httpapi.Problem{Message: "connect:\x1b[2J no route", Hint: "plug it in"},
		})
	}
	return s
}

// Every JSON answer is one envelope.
func TestEnvelope(t *testing.T) {
	for _, args := range [][]string{
		{"version"}, {"config", "schema"}, {"config", "validate", "-f", "testdata/good.yaml"}, {"config", "validate", "-f", "testdata/three.yaml"},
		{"lag", "--http-listen", "127.0.0.1:1"}, {"grants", "--role", "r", "--tables", "a.b"}, {"doctor", "--codes"}, {"doctor", "--offline", "-f", "testdata/doctor.yaml"},
		{"run", "-f", "nowhere"}, {"capture", "status", "--http-listen", "127.0.0.1:1"}, {"topic", "tail", "t", "--from", "x"},
	} {
		code, stdout, stderr := execute(append(args, "-o", "json")...)
		var e map[string]json.RawMessage
		if err := json.Unmarshal([]byte(stdout), &e); err != nil {
			t.Fatalf("%v: %v in %q", args, err, stdout)
		}
		for _, key := range []string{"command", "ok", "summary", "result", "error"} {
			if e[key] == nil {
				t.Errorf("%v: no %s", args, key)
			}
		}
		if len(e) != 5 || string(e["ok"]) == "true" != (code == 0) || string(e["error"]) == "null" != (code == 0) || stderr != "" {
			t.Errorf("%v: code %d, %s, %s", args, code, stdout, stderr)
		}
		if name := `"` + strings.Join(args[:min(2, len(args))], " ") + `"`; len(args) > 2 && args[0] != "run" && !strings.HasPrefix(args[1], "-") && string(e["command"]) != name {
			t.Errorf("command is %s, want %s", e["command"], name)
		}
	}
}

// The schema that is printed is the one that the file's modeline can name.
func TestConfigSchema(t *testing.T) {
	code, stdout, _ := execute("config", "schema")
	var s struct{ Properties map[string]any }
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 || s.Properties["captures"] == nil {
		t.Errorf("code %d, %v, %.100s", code, err, stdout)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := execute("completion", shell); code != 0 || !strings.Contains(stdout, "tailrace") {
			t.Errorf("%s: code %d, %.80s", shell, code, stdout)
		}
	}
}

// A flag wins over the environment, the environment over the file.
func TestPrecedence(t *testing.T) {
	t.Setenv("TAILRACE_HTTP_LISTEN", "0.0.0.0:1")
	if code, _, stderr := execute("config", "validate", "-f", "testdata/good.yaml"); code != 2 || !strings.Contains(stderr, "http.listen would be reachable") {
		t.Errorf("the environment does not win over the file: %d %s", code, stderr)
	}
	if code, _, stderr := execute("config", "validate", "-f", "testdata/good.yaml", "--http-listen", "127.0.0.1:1"); code != 0 {
		t.Errorf("a flag does not win over the environment: %d %s", code, stderr)
	}
	t.Setenv("TAILRACE_HTTP_LISTEN", "")
	t.Setenv("TAILRACE_FILE", "testdata/three.yaml")
	if code, _, _ := execute("config", "validate"); code != 2 {
		t.Error("TAILRACE_FILE is not read")
	}
	t.Setenv("TAILRACE_OUTPUT", "json")
	if _, stdout, _ := execute("version"); !strings.HasPrefix(stdout, "{") {
		t.Error("TAILRACE_OUTPUT is not read")
	}
	t.Setenv("TAILRACE_BROKERS", `"`)
	if code, stdout, _ := execute("version"); code != 2 || !strings.Contains(stdout, "TAILRACE_BROKERS") {
		t.Errorf("a wrong TAILRACE_BROKERS is not said: %d %s", code, stdout)
	}
}

// No answer: the environment is not as needed.
func TestNobodyThere(t *testing.T) {
	code, _, stderr := execute("capture", "status", "--http-listen", "127.0.0.1:1")
	if code != 3 || !strings.Contains(stderr, "error: ask for the status at 127.0.0.1:1") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

// What comes from outside cannot command the terminal.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31m\u202eb\tc\nd\x9b"); strings.ContainsAny(got, "\x1b\u202e\t") || !strings.Contains(got, "\n") {
		t.Errorf("got %q", got)
	}
}

// The log is JSON unless a terminal reads it or text is asked for; text has no colours
// where no terminal is.
func TestLogger(t *testing.T) {
	for format, want := range map[string]string{"auto": `{"time":`, "json": `{"time":`, "text": "INF hello key=value\n"} {
		var out bytes.Buffer
		c := &cli{err: &out, env: os.LookupEnv}
		log := c.logger(config.Log{Level: "info", Format: format})
		log.Debug("not shown")
		log.Info("hello", "key", "value")
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "\x1b") || strings.Contains(got, "not shown") {
			t.Errorf("%s: got %q", format, got)
		}
	}
}
