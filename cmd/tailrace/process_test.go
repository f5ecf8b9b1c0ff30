package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// asCommand makes the test's own binary behave as tailrace.
const asCommand = "TAILRACE_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	flag.Parse()
	if !isSet("test.parallel") { // what is parallel here waits most of the time: for sessions, restarts, pauses
		if err := flag.Set("test.parallel", "4"); err != nil {
			panic(err)
		}
	}
	testenv.Main(m)
}

// isSet says whether a flag is on the command line.
func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// patience is how long a test waits for something that must come.
const patience = time.Minute

// settings is a configuration to be run.
type settings struct {
	name, broker, registry, postgres, more string // YAML of those parts; more: further keys of the capture
	url                                    string // of the database
}

// instance is a configuration with addresses of its own.
type instance struct {
	file, http string
	url        string
	bin        string   // of tailrace; "": the test's own
	env        []string // NAME=value, further ones

	client *http.Client // for get; nil: one of its own, without a token
	scheme string       // "": http
}

// configure writes a configuration file.
func (s settings) configure(t *testing.T) *instance {
	t.Helper()
	dir := t.TempDir()
	i := &instance{file: filepath.Join(dir, "tailrace.yaml"), http: freeAddress(t), url: s.url}
	text := fmt.Sprintf("broker: %s\nregistry: %s\nhttp: { listen: %s }\nlog: { level: debug }\ncaptures:\n  - name: %s\n    postgres: { url: %q, slot: %s%s }\n%s",
		s.broker, s.registry, i.http, s.name, inFile(t, s.url), s.slot(), s.postgres, s.more)
	if err := os.WriteFile(i.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// inFile is how a configuration names a secret that is in a file: tests that run side by side
// have one environment.
func inFile(t *testing.T, secret string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return "${file:" + file + "}"
}

// sinkTo is the YAML of a sink of a capture's name into a PostgreSQL database.
func sinkTo(t *testing.T, name, url string) string {
	t.Helper()
	return fmt.Sprintf("sinks:\n  - { name: %s, from: %s, postgres: { url: %q } }\n", name, name, inFile(t, url))
}

// slot is the capture's slot: slots know no dash.
func (s settings) slot() string { return strings.ReplaceAll(s.name, "-", "_") }

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// embeddedBroker is the YAML of a broker in the process.
func embeddedBroker(t *testing.T) string {
	return fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 1 } }", filepath.Join(t.TempDir(), "data"), freeAddress(t))
}

// kafkaBroker is the YAML of Apache Kafka.
func kafkaBroker(t *testing.T) string {
	return fmt.Sprintf("{ kafka: { brokers: [%q] } }", testenv.SharedKafka(t))
}

// ownRegistry is the YAML of our own registry, with a topic for this test alone.
func ownRegistry(t *testing.T) string {
	return fmt.Sprintf("{ serve: %q, topic: %s }", freeAddress(t), testenv.Unique("schemas"))
}

// process is a running tailrace.
type process struct {
	*instance
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	log  lockedBuffer
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs `tailrace run`.
func (i *instance) start(t *testing.T) *process {
	t.Helper()
	p := &process{instance: i, t: t, cmd: exec.Command(cmp.Or(i.bin, os.Args[0]), "run", "-f", i.file), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), asCommand+"=1"), i.env...)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code is asked for by who needs it
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("log of %s:\n%s", i.file, p.log.String())
		}
		if i.url != "" && strings.Contains(p.log.String(), password(i.url)) {
			t.Error("the password is in the log")
		}
	})
	return p
}

// password cuts the password out of a URL.
func password(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	user, _, _ := strings.Cut(rest, "@")
	_, pw, _ := strings.Cut(user, ":")
	return ":" + pw + "@"
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("does not end\n%s", p.log.String())
		return -1
	}
}

// stop sends a signal and expects an exit code.
func (p *process) stop(s syscall.Signal, code int) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	if got := p.exit(); got != code {
		p.t.Errorf("%v: exit code %d, want %d\n%s", s, got, code, p.log.String())
	}
}

// ready waits until /readyz says so.
func (p *process) ready() {
	p.t.Helper()
	p.until("ready", func() bool { code, _ := p.get("/readyz"); return code == http.StatusOK })
	p.filled()
}

// filled waits until every capture runs and has read the rows that were there.
func (p *process) filled() {
	p.t.Helper()
	p.until("through with its backfills", func() bool {
		var status httpapi.Status
		if _, body := p.get("/status"); json.Unmarshal([]byte(body), &status) != nil {
			return false
		}
		for _, c := range status.Captures { // its backfills are known when it says that it runs
			if len(c.Backfills) > 0 || !strings.Contains(p.log.String(), `"msg":"capture runs","capture":"`+c.Name+`"`) {
				return false
			}
		}
		return true
	})
}

// until waits for a condition.
func (p *process) until(what string, condition func() bool) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("ended before it was %s, with %d\n%s", what, p.cmd.ProcessState.ExitCode(), p.log.String())
		case <-deadline:
			p.t.Fatalf("is not %s\n%s", what, p.log.String())
		}
	}
}

// get asks the process over HTTP; 0: no answer.
func (p *process) get(path string) (int, string) {
	resp, err := cmp.Or(p.client, http.DefaultClient).Get(cmp.Or(p.scheme, "http") + "://" + p.http + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		return 0, ""
	}
	return resp.StatusCode, b.String()
}

// tail reads count records of a topic with `topic tail`.
func (i *instance) tail(t *testing.T, topic string, count int, more ...string) []show.Record {
	t.Helper()
	i.waitForTopic(t, topic)
	args := append([]string{"topic", "tail", topic, "-f", i.file, "-o", "json", "--count", fmt.Sprint(count)}, more...)
	code, stdout, stderr := execute(args...)
	if code != 0 {
		t.Fatalf("topic tail ended with %d: %s", code, stderr)
	}
	var out []show.Record
	for line := range strings.Lines(stdout) {
		var r show.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.Error != "" {
			t.Errorf("record with an error: %s", line)
		}
		out = append(out, r)
	}
	return out
}

// waitForTopic waits until a topic is there: it is made when its first change comes.
func (i *instance) waitForTopic(t *testing.T, topic string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		code, stdout, stderr := execute("topic", "list", "-f", i.file)
		if code == 0 && strings.Contains(stdout, topic+" ") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("topic %s does not come: %d\n%s%s", topic, code, stdout, stderr)
		}
	}
}
