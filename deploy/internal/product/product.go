package product

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// Build compiles the command into dir, with the failpoints and mutants if asked for.
func Build(ctx context.Context, dir string, failpoints bool) (string, error) {
	root, err := testenv.Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "tailrace")
	args := []string{"build", "-o", bin}
	if failpoints {
		args = append(args, "-tags", "failpoint")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/tailrace")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tailrace: %w\n%s", err, out)
	}
	return bin, nil
}

// Sink is the name of the sink, if there is one.
const Sink = "target"

// Config is what a capture of the bench, and its sink, are configured with.
type Config struct {
	Dir        string // for the configuration, the log and the embedded broker's data
	Bin        string // of Build
	Kafka      string // host:port of the broker; "": the embedded one
	Database   string // URL
	Prefix     string // of topics; also the capture's name
	Snapshot   string // mode; "": never
	Readers    int    // of backfills; 0: 2
	Rate       int    // rows a second of each backfill; 0: no limit
	Partitions int
	Env        []string          // NAME=value, beside the environment of this process
	Topics     map[string]string // settings of the topics
	Target     string            // URL of a database to apply the changes to; "": no sink
	Mode       string            // of the sink
}

// Product is the capture's process, one run after the other. It belongs to one goroutine.
type Product struct {
	bin    string
	dir    string // in which it runs
	env    []string
	file   string
	log    string
	broker string // host:port
	http   string // URLs without a slash at the end
	reg    string
	proc   *testenv.Process
}

// Of is the product with a configuration file that is there. It runs in dir, where its log
// goes too, with env (NAME=value) beside the environment of this process; its health is
// asked for at the address http.
func Of(bin, dir, file, http string, env ...string) *Product {
	return &Product{bin: bin, dir: dir, env: env, file: file, log: filepath.Join(dir, "tailrace.log"), http: "http://" + http}
}

// New writes the configuration.
func New(cfg Config) (*Product, error) {
	var ports [3]int
	for i := range ports {
		p, err := testenv.FreePort()
		if err != nil {
			return nil, err
		}
		ports[i] = p
	}
	p := Of(cfg.Bin, cfg.Dir, filepath.Join(cfg.Dir, "tailrace.yaml"), fmt.Sprintf("127.0.0.1:%d", ports[2]),
		append([]string{"BENCH_DATABASE=" + cfg.Database, "BENCH_TARGET=" + cfg.Target}, cfg.Env...)...)
	p.broker, p.reg = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	broker := fmt.Sprintf("  embedded:\n    dir: %s\n    listen: %s\n", filepath.Join(cfg.Dir, "broker"), p.broker)
	if cfg.Kafka != "" {
		p.broker = cfg.Kafka
		broker = fmt.Sprintf("  kafka:\n    brokers: [%s]\n", cfg.Kafka)
	}
	var settings strings.Builder
	if len(cfg.Topics) > 0 {
		settings.WriteString("      config:\n")
		for name, v := range cfg.Topics {
			fmt.Fprintf(&settings, "        %s: %q\n", name, v)
		}
	}
	rate := ""
	if cfg.Rate > 0 {
		rate = fmt.Sprintf(", rate: %d", cfg.Rate)
	}
	text := fmt.Sprintf(`broker:
%sregistry:
  serve: 127.0.0.1:%d
http:
  listen: 127.0.0.1:%d
log:
  level: info
  format: text
captures:
  - name: %s
    snapshot: %s
    backfill: { readers: %d%s }
    postgres:
      url: "${env:BENCH_DATABASE}"
      tables: [public.*]
    topics:
      partitions: %d
%s`, broker, ports[1], ports[2], cfg.Prefix, cmp.Or(cfg.Snapshot, "never"), cmp.Or(cfg.Readers, 2), rate, cfg.Partitions, settings.String())
	if cfg.Target != "" {
		text += fmt.Sprintf("sinks:\n  - name: %s\n    from: %s\n    mode: %s\n    postgres:\n      url: \"${env:BENCH_TARGET}\"\n", Sink, cfg.Prefix, cfg.Mode)
	}
	return p, os.WriteFile(p.file, []byte(text), 0o600)
}

// Broker is the broker's host:port.
func (p *Product) Broker() string { return p.broker }

// Registry is the URL of the registry that the product serves while it runs.
func (p *Product) Registry() string { return p.reg }

// Start starts the process; env is added to its environment for this run.
func (p *Product) Start(env ...string) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintln(log, "-- start", strings.Join(env, " "))
	cmd := exec.Command(p.bin, "run", "-f", p.file)
	cmd.Dir = p.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), p.env...), env...)
	p.proc, err = testenv.StartProcess(cmd, syscall.SIGKILL)
	return err
}

// Command runs another of the product's commands, with the configuration and environment
// of the process, which may run meanwhile. An exit code above 0 is no error.
func (p *Product) Command(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, p.bin, append(args, "-f", p.file)...)
	cmd.Dir = p.dir
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), p.env...)
	var exit *exec.ExitError
	if err = cmd.Run(); errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), err
}

// Stop asks the process to end, waits for it and returns its exit code.
func (p *Product) Stop(ctx context.Context) (int, error) {
	if err := p.proc.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-p.Done():
		return p.proc.State().ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("stop tailrace: %w\n%s", ctx.Err(), p.Log(4000))
	}
}

// Pid is the running process's id.
func (p *Product) Pid() int { return p.proc.Pid() }

// Done is closed when the process has ended.
func (p *Product) Done() <-chan struct{} { return p.proc.Done() }

// Kill sends SIGKILL and waits for the end.
func (p *Product) Kill() error { return p.proc.Kill() }

// Close kills the process, if one was started.
func (p *Product) Close() error {
	if p.proc == nil {
		return nil
	}
	return p.proc.Kill()
}

// Killed says whether the process, which has ended, was ended by SIGKILL; otherwise it
// ended by itself.
func (p *Product) Killed() bool {
	status, ok := p.proc.State().Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// End says how the process ended, in words.
func (p *Product) End() string { return p.proc.State().String() }

// Log is the end of what the process has written, at most n bytes.
func (p *Product) Log(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}

// Ready waits until the product says that every capture and sink runs. It fails when ctx
// ends or the process does.
func (p *Product) Ready(ctx context.Context) error {
	return p.await(ctx, "ready", func() bool { return ready(ctx, p.http+"/readyz") })
}

// Capturing waits until every capture runs; a sink may still wait for topics, which come
// with the first change. It fails when ctx ends or the process does.
func (p *Product) Capturing(ctx context.Context) error {
	return p.await(ctx, "capturing", func() bool {
		s, err := p.status(ctx)
		if err != nil {
			return false
		}
		return len(s.Captures) > 0 && !slices.ContainsFunc(s.Captures, func(a activity) bool { return a.State != "running" })
	})
}

func (p *Product) await(ctx context.Context, what string, is func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if is() {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("the capture ended before it was %s: %s\n%s", what, p.End(), p.Log(4000))
		case <-ctx.Done():
			return fmt.Errorf("wait for the capture to be %s: %w\n%s", what, ctx.Err(), p.Log(4000))
		}
	}
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// activity is a capture or a sink in the status.
type activity struct {
	State     string
	Error     *struct{ Message string }
	Backfills []Backfill
}

// Backfill is what the status tells of a backfill that has not ended, or has failed.
type Backfill struct{ ID, Name, State, Error string }

type status struct{ Captures, Sinks []activity }

func (p *Product) status(ctx context.Context) (*status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.http+"/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	s := new(status)
	return s, json.NewDecoder(resp.Body).Decode(s)
}

// Stopped says why a capture or sink does not go on, if one has given up: its error as
// /status tells it. "" also if the product does not answer.
func (p *Product) Stopped(ctx context.Context) string {
	s, err := p.status(ctx)
	if err != nil {
		return ""
	}
	for _, a := range append(s.Captures, s.Sinks...) {
		if a.State == "stopped" && a.Error != nil {
			return a.Error.Message
		}
	}
	return ""
}

// Backfills are those of the capture that have not ended, or have failed; false if it does
// not run. Any goroutine may ask.
func (p *Product) Backfills(ctx context.Context) ([]Backfill, bool) {
	s, err := p.status(ctx)
	if err != nil || len(s.Captures) != 1 || s.Captures[0].State != "running" {
		return nil, false
	}
	return s.Captures[0].Backfills, true
}

// PeakMemory is the most memory that the process had resident so far, in bytes (VmHWM).
func (p *Product) PeakMemory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, errors.New("read the peak memory: no VmHWM")
}
