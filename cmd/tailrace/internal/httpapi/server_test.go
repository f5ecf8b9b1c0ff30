package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// get asks a handler, with a Host of the test's choice.
func get(h http.Handler, method, host, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handler(s Status) http.Handler {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "tailrace_test_total", Help: "A test."})
	reg.MustRegister(c)
	return New(func() Status { return s }, reg, &Access{})
}

func TestEndpoints(t *testing.T) {
	ready := handler(Status{Version: "1", Ready: true, Captures: []Capture{{Name: "shop", State: Running}}})
	unready := handler(Status{Causes: []string{"capture shop is waiting: no route"}})
	for _, c := range []struct {
		name, method, path string
		h                  http.Handler
		code               int
		holds              string
	}{
		{"live", "GET", "/livez", unready, 200, `"live": true`},
		{"ready", "GET", "/readyz", ready, 200, `"ready": true`},
		{"not ready", "GET", "/readyz", unready, 503, "capture shop is waiting: no route"},
		{"status", "GET", "/status", ready, 200, `"state": "running"`},
		{"status when not ready", "GET", "/status", unready, 200, `"ready": false`},
		{"metrics", "GET", "/metrics", unready, 200, "tailrace_test_total 0"},
		{"no such path", "GET", "/", ready, 404, ""},
		{"no effects", "POST", "/status", ready, 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(c.h, c.method, "127.0.0.1:9090", c.path)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.holds) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
}

func TestStatusIsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Status{Version: "1", Started: at, Captures: []Capture{{Name: "a", State: Waiting, Since: at, RetryAt: &at, Error: &Problem{Message: "m", Hint: "h", Fatal: true}}}}
	w := get(handler(want), "GET", "localhost", "/status")
	var got Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Captures[0].Error == nil || *got.Captures[0].Error != *want.Captures[0].Error || !got.Captures[0].RetryAt.Equal(at) {
		t.Errorf("got %+v", got)
	}
}

// A name that resolves to loopback is not a loopback name.
func TestHosts(t *testing.T) {
	for host, code := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:9090": 200, "localhost:1": 200, "[::1]:1": 200, "[::1]": 200, "127.8.8.8": 200,
		"evil.example": 421, "evil.example:9090": 421, "localhost.evil.example": 421, "": 421, "10.0.0.1": 421, "127.0.0.1.evil.example": 421, "[": 421,
	} {
		if w := get(handler(Status{}), "GET", host, "/livez"); w.Code != code {
			t.Errorf("%q: got %d, want %d", host, w.Code, code)
		}
	}
}

func TestListen(t *testing.T) {
	l, err := Listen(t.Context(), "tests", &Access{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), "tests", &Access{Address: l.Addr().String()})
	e, ok := err.(*listenError)
	if !ok || !e.Fatal() || !e.Environment() || e.Hint() == "" || !strings.Contains(e.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	for _, address := range []string{"0.0.0.0:0", ":0", "x", "192.0.2.1:0"} {
		if l, err := Listen(t.Context(), "tests", &Access{Address: address}); err == nil {
			_ = l.Close()
			t.Errorf("%s: listens", address)
		}
	}
}

func TestServe(t *testing.T) {
	l, err := Listen(t.Context(), "tests", &Access{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, handler(Status{})) }()
	answer, err := http.Get("http://" + l.Addr().String() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if !strings.Contains(string(body), "true") {
		t.Errorf("got %s", body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if l, err = Listen(t.Context(), "tests", &Access{Address: l.Addr().String()}); err != nil {
		t.Error(err)
	} else {
		_ = l.Close()
	}
}

// A listener that is taken away ends Serve with an error.
func TestServeFails(t *testing.T) {
	l, err := Listen(t.Context(), "tests", &Access{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := Serve(t.Context(), l, handler(Status{})); err == nil {
		t.Error("no error")
	}
}
