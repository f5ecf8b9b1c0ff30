package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
)

// serviceManager is what listens at NOTIFY_SOCKET.
type serviceManager struct {
	*testing.T
	conn *net.UnixConn
	path string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &serviceManager{t, conn, path}
}

// hears returns the next message; "" if none comes in time.
func (m *serviceManager) hears(within time.Duration) string {
	m.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		m.Fatal(err)
	}
	var b [200]byte
	n, err := m.conn.Read(b[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		m.Fatal(err)
	}
	return string(b[:n])
}

// hearsNext waits for a message other than a sign of life, and counts those.
func (m *serviceManager) hearsNext(want string) (pings int) {
	m.Helper()
	for {
		switch got := m.hears(patience); got {
		case want:
			return pings
		case "WATCHDOG=1":
			pings++
		default:
			m.Fatalf("the service manager hears %q, not %s", got, want)
		}
	}
}

// environment answers from a map.
func environment(of map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := of[name]; return v, ok }
}

// `tailrace run` tells the service manager when it is there, when it reads its
// configuration again, that it lives, and that it stops.
func TestRunTellsTheServiceManager(t *testing.T) {
	m := newServiceManager(t)
	in := settings{name: "notify", broker: embeddedBroker(t), registry: ownRegistry(t), url: "postgres://u:secret@" + freeAddress(t) + "/d"}.configure(t)
	in.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"} // it has no database: that is not the service manager's business
	p := in.start(t)
	m.hearsNext("READY=1")
	if code, _ := p.get("/livez"); code != 200 {
		t.Errorf("it is ready, and answers %d", code)
	}
	for n := range 5 {
		if got := m.hears(patience); got != "WATCHDOG=1" {
			t.Fatalf("sign of life %d is %q", n, got)
		}
	}
	for _, change := range [][2]string{{"level: debug", "level: info"}, {"level: info", "level: nonsense"}} { // a mistake does no harm
		p.rewrite(change[0], change[1])
		m.hearsNext("RELOADING=1")
		m.hearsNext("READY=1")
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.hearsNext("STOPPING=1")
	if code := p.exit(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	for got := m.hears(time.Millisecond); got != ""; got = m.hears(time.Millisecond) {
		if got != "WATCHDOG=1" {
			t.Errorf("after it has ended there is %q", got)
		}
	}
}

// A process that cannot tell how it is doing gives no sign of life; one that can, does.
func TestNoSignOfLifeFromAHang(t *testing.T) {
	m := newServiceManager(t)
	told, err := newManager(environment(map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": fmt.Sprint(os.Getpid())}), slog.New(slog.DiscardHandler))
	if err != nil || told.ping != 10*time.Millisecond {
		t.Fatal(told, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hang, asked, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		told.watch(ctx, func() { asked <- struct{}{}; <-hang })
	}()
	<-asked
	if got := m.hears(100 * time.Millisecond); got != "" {
		t.Errorf("it hangs, and says %q", got)
	}
	hang <- struct{}{}
	if got := m.hears(patience); got != "WATCHDOG=1" {
		t.Errorf("it goes on, and says %q", got)
	}
	cancel()
	close(hang)
	for ended := false; !ended; {
		select {
		case <-asked:
		case <-done:
			ended = true
		}
	}
}

// What the environment says of a service manager, and what is made of it.
func TestServiceManagerOfTheEnvironment(t *testing.T) {
	m := newServiceManager(t)
	for what, c := range map[string]struct {
		env  map[string]string
		want string // of the error
		ping time.Duration
		none bool
	}{
		"none":                 {env: map[string]string{"WATCHDOG_USEC": "1000000"}, none: true},
		"no watchdog":          {env: map[string]string{"NOTIFY_SOCKET": m.path}},
		"a watchdog":           {env: map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "3000000"}, ping: 1500 * time.Millisecond},
		"another's watchdog":   {env: map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}},
		"nobody listens":       {env: map[string]string{"NOTIFY_SOCKET": m.path + "x"}, want: "reach the service manager"},
		"a watchdog of naught": {env: map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "0"}, want: "WATCHDOG_USEC is no time"},
	} {
		told, err := newManager(environment(c.env), slog.New(slog.DiscardHandler))
		switch {
		case c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) || app.ExitCode(err) != app.ExitEnvironment || app.Hint(err) == "" {
				t.Errorf("%s: %v", what, err)
			}
		case err != nil || (told == nil) != c.none || told != nil && told.ping != c.ping:
			t.Errorf("%s: %+v, %v", what, told, err)
		}
	}
}

// A reload while it starts does not say that it has started.
func TestReloadBeforeReady(t *testing.T) {
	m := newServiceManager(t)
	told, err := newManager(environment(map[string]string{"NOTIFY_SOCKET": m.path}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	works := 0
	told.reload(func() { works++ })
	if got := m.hears(time.Millisecond); got != "" {
		t.Errorf("it says %q", got)
	}
	told.ready()
	told.reload(func() { works++ })
	told.stopping()
	for _, want := range []string{"READY=1", "RELOADING=1", "READY=1", "STOPPING=1"} {
		m.hearsNext(want)
	}
	(*manager)(nil).reload(func() { works++ })
	if works != 3 {
		t.Errorf("it worked %d times", works)
	}
}
