package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// unreachable is a configuration of a process whose database does not answer.
func unreachable(t *testing.T) *config.Config {
	t.Helper()
	port := func() string {
		p, err := testenv.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("127.0.0.1:%d", p)
	}
	return &config.Config{
		Broker:   config.Broker{Embedded: &config.Embedded{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: 1}},
		Registry: config.Registry{Serve: "127.0.0.1:0", Topic: "_schemas"},
		HTTP:     config.HTTP{Listen: port()},
		Captures: []config.Capture{{
			Name: "shop", Prefix: "shop", Compression: "lz4",
			Topics: config.Topics{Partitions: 1, Create: new(true)},
			Postgres: &config.Postgres{
				URL: config.NewSecret("postgres://u:p@" + port() + "/d"), Slot: "s", Publication: "s", CreatePublication: new(true),
			},
		}},
	}
}

// A process that is told to stop ends without an error, whatever its captures wait for,
// and leaves no goroutine behind.
func TestRunLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	cfg := unreachable(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, Options{Version: "test", Log: quiet}) }()
	waitFor(t, "http://"+cfg.HTTP.Listen+"/status", `"state": "waiting"`, `"state": "running"`)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// waitFor asks a URL until its answer holds every text.
func waitFor(t *testing.T, url string, texts ...string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	last := ""
	for {
		if resp, err := http.Get(url); err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			last = string(body)
		}
		missing := 0
		for _, text := range texts {
			if !strings.Contains(last, text) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s answers %s", url, last)
		}
	}
}

// What cannot be opened ends the process at once, and gives back what was opened before.
func TestRunFails(t *testing.T) {
	before := goleak.IgnoreCurrent()
	cfg := unreachable(t)
	taken, err := httpapi.Listen(t.Context(), "test", &httpapi.Access{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Registry.Serve = taken.Addr().String()
	err = Run(t.Context(), cfg, Options{Log: quiet})
	if ExitCode(err) != ExitEnvironment || Hint(err) == "" {
		t.Errorf("got %v, code %d", err, ExitCode(err))
	}
	goleak.VerifyNone(t, before)
}

func TestCauses(t *testing.T) {
	s := httpapi.Status{
		Broker:   httpapi.BrokerStatus{Low: true},
		Registry: httpapi.RegistryStatus{Kind: "served", State: httpapi.Starting},
		Captures: []httpapi.Capture{{Name: "a", State: httpapi.Running}, {Name: "b", State: httpapi.Stopped, Error: &httpapi.Problem{Message: "no"}}},
		Sinks:    []httpapi.Sink{{Name: "c", State: httpapi.Running}, {Name: "d", State: httpapi.Standby}, {Name: "e", State: httpapi.Waiting}},
	}
	got := causes(&s)
	if len(got) != 4 || !strings.Contains(got[0], "min_free") || got[1] != "registry is starting" || got[2] != `capture "b" is stopped: no` || got[3] != `sink "e" is waiting` {
		t.Errorf("got %q", got)
	}
	s = httpapi.Status{Registry: httpapi.RegistryStatus{Kind: "external"}, Captures: s.Captures[:1]}
	if got := causes(&s); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestJoin(t *testing.T) {
	one := errors.New("one")
	if join([]error{nil, nil}) != nil || join([]error{nil, one}) != one || !errors.Is(join([]error{one, fatal{}}), fatal{}) {
		t.Error("wrong")
	}
}
