package product

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// Config is what a capture of the bench is configured with.
type Config struct {
	Dir        string // for the configuration, the log and the embedded broker's data
	Bin        string // of Build
	Kafka      string // host:port of the broker; "": the embedded one
	Database   string // URL
	Prefix     string // of topics; also the capture's name
	Partitions int
	Env        []string          // NAME=value, beside the environment of this process
	Topics     map[string]string // settings of the topics
}

// Product is the capture's process, one run after the other. It belongs to one goroutine.
type Product struct {
	cfg    Config
	file   string
	log    string
	broker string // host:port
	http   string // URLs without a slash at the end
	reg    string
	proc   *testenv.Process
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
	p := &Product{cfg: cfg, file: filepath.Join(cfg.Dir, "tailrace.yaml"), log: filepath.Join(cfg.Dir, "tailrace.log"),
		broker: fmt.Sprintf("127.0.0.1:%d", ports[0]), reg: fmt.Sprintf("http://127.0.0.1:%d", ports[1]), http: fmt.Sprintf("http://127.0.0.1:%d", ports[2])}
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
    snapshot: never
    postgres:
      url: "${env:BENCH_DATABASE}"
      tables: [public.*]
    topics:
      partitions: %d
%s`, broker, ports[1], ports[2], cfg.Prefix, cfg.Partitions, settings.String())
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
	cmd := exec.Command(p.cfg.Bin, "run", "-f", p.file)
	cmd.Dir = p.cfg.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), "BENCH_DATABASE="+p.cfg.Database), append(p.cfg.Env, env...)...)
	p.proc, err = testenv.StartProcess(cmd, syscall.SIGKILL)
	return err
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

// Ready waits until the product says that every capture runs. It fails when ctx ends or
// the process does.
func (p *Product) Ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, p.http+"/readyz") {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("the capture ended before it was ready: %s\n%s", p.End(), p.Log(4000))
		case <-ctx.Done():
			return fmt.Errorf("wait for the capture to be ready: %w\n%s", ctx.Err(), p.Log(4000))
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

// Stopped says why a capture does not go on, if one has given up: its error as /status
// tells it. "" also if the product does not answer.
func (p *Product) Stopped(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.http+"/status", nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var status struct {
		Captures []struct {
			State string
			Error *struct{ Message string }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return ""
	}
	for _, c := range status.Captures {
		if c.State == "stopped" && c.Error != nil {
			return c.Error.Message
		}
	}
	return ""
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
