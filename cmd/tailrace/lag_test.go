package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

func TestLagOf(t *testing.T) {
	capture := func(state httpapi.State, lag float64) httpapi.Status {
		return httpapi.Status{Captures: []httpapi.Capture{{Name: "c", State: state, Lag: lag}}}
	}
	sink := func(state httpapi.State, lag float64) httpapi.Status {
		return httpapi.Status{Sinks: []httpapi.Sink{{Name: "s", State: state, Lag: lag}}}
	}
	for _, c := range []struct {
		name   string
		status httpapi.Status
		max    time.Duration
		cause  string
	}{
		{"nothing behind", capture(httpapi.Running, 0), time.Second, ""},
		{"just within", capture(httpapi.Running, 1), time.Second, ""},
		{"above", capture(httpapi.Running, 1.01), time.Second, "is 1.0s behind, more than 1s"},
		{"not asked for", capture(httpapi.Stopped, 99), 0, ""},
		{"starting", capture(httpapi.Starting, 0), time.Second, "is starting"},
		{"waiting", capture(httpapi.Waiting, 0), time.Second, "is waiting"},
		{"stopped", capture(httpapi.Stopped, 0), time.Second, "is stopped"},
		{"sink above", sink(httpapi.Running, 31), 30 * time.Second, "is 31.0s behind, more than 30s"},
		{"sink stopped", sink(httpapi.Stopped, 0), time.Second, "is stopped"},
		{"sink stands by", sink(httpapi.Standby, 99), time.Second, ""},
		{"capture that stands by", capture(httpapi.Standby, 0), time.Second, "is standby"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := lagOf(&c.status, c.max).Parts[0]
			if p.Cause != c.cause || p.OK != (c.cause == "") {
				t.Errorf("ok %v, cause %q, want %q", p.OK, p.Cause, c.cause)
			}
		})
	}
}

// It asks until the check fails.
func TestLagWatch(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(httpapi.New(func() httpapi.Status {
		now := status(true)
		if asked.Add(1) == 3 {
			now.Captures[0].Lag = 31
		}
		return now
	}, nil, &httpapi.Access{}))
	defer s.Close()
	code, stdout, stderr := execute("lag", "--watch", "--every", "100ms", "--max", "30s", "--http-listen", strings.TrimPrefix(s.URL, "http://"))
	if code != 4 || asked.Load() != 3 || strings.Count(stdout, "PART") != 3 || !strings.Contains(stderr, `capture "shop" is 31.0s behind`) {
		t.Errorf("code %d after %d answers\n%s%s", code, asked.Load(), stdout, stderr)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	if code, _, stderr := execute("lag", "--watch", "--max", "30s", "--http-listen", strings.TrimPrefix(gone.URL, "http://")); code != 3 || !strings.Contains(stderr, "hint: ") {
		t.Errorf("nobody there: code %d, %s", code, stderr)
	}
}
