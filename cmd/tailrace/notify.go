package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// manager is the service manager that started this process and wants to be told how it is
// doing: systemd's protocol, datagrams to the socket that NOTIFY_SOCKET names. nil: there is
// none.
type manager struct {
	conn *net.UnixConn
	ping time.Duration // between two signs of life; 0: it wants none
	up   atomic.Bool
	log  *slog.Logger // of what it cannot be told: that is no reason to stop working
}

// newManager connects to the service manager that the environment names, if any.
func newManager(env func(string) (string, bool), log *slog.Logger) (*manager, error) {
	socket, _ := env("NOTIFY_SOCKET")
	if socket == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, &managerError{err}
	}
	m := &manager{conn: conn, log: log}
	if pid, ok := env("WATCHDOG_PID"); ok && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	if text, ok := env("WATCHDOG_USEC"); ok {
		micros, err := strconv.ParseInt(text, 10, 64)
		if err != nil || micros <= 0 {
			return nil, &managerError{fmt.Errorf("WATCHDOG_USEC is no time: %q", text)}
		}
		m.ping = time.Duration(micros) * time.Microsecond / 2
	}
	return m, nil
}

// tell sends what has changed.
func (m *manager) tell(state string) {
	if m == nil {
		return
	}
	if _, err := m.conn.Write([]byte(state)); err != nil {
		m.log.Warn("the service manager could not be told", "state", state, "error", err)
	}
}

// ready says that the process has started: it listens, and its parts are at work or trying.
func (m *manager) ready() {
	if m != nil {
		m.up.Store(true)
		m.tell("READY=1")
	}
}

// reload says that the process is doing what it was asked for, and that it is done.
func (m *manager) reload(work func()) {
	if m == nil || !m.up.Load() { // it is starting: to say that it is ready would be wrong
		work()
		return
	}
	m.tell("RELOADING=1")
	work()
	m.tell("READY=1")
}

// stopping says that the process is about to end.
func (m *manager) stopping() { m.tell("STOPPING=1") }

// watch gives signs of life until ctx ends. alive returns only if the process can still do
// its work: while it does not, there is no sign, and the service manager starts the process
// again.
func (m *manager) watch(ctx context.Context, alive func()) {
	if m == nil || m.ping == 0 {
		return
	}
	tick := time.NewTicker(m.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		alive()
		m.tell("WATCHDOG=1")
	}
}

// managerError is a service manager that cannot be told anything.
type managerError struct{ err error }

// Error implements error.
func (e *managerError) Error() string {
	return fmt.Sprintf("reach the service manager: %v", e.err)
}

// Unwrap gives the cause.
func (e *managerError) Unwrap() error { return e.err }

// Environment asks for exit code 3.
func (e *managerError) Environment() bool { return true }

// Hint says what to do.
func (e *managerError) Hint() string {
	return "NOTIFY_SOCKET and WATCHDOG_USEC are set by systemd: unset them when you start tailrace by hand"
}
