package webhook

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// answers are what a target of a test says, one after the other; then 204.
type answers struct {
	mu   sync.Mutex
	list []answer
	at   []time.Time // when it was asked
	sent []*http.Request
	body []string
}

type answer struct {
	status int
	header string // Name: value
	body   io.Reader
	err    error
	hangs  bool
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	now := a.next(r, string(body))
	if now.hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if now.err != nil {
		return nil, now.err
	}
	res := &http.Response{StatusCode: now.status, Body: http.NoBody, Header: http.Header{}}
	if name, value, ok := strings.Cut(now.header, ": "); ok {
		res.Header.Set(name, value)
	}
	if now.body != nil {
		res.Body = io.NopCloser(now.body)
	}
	return res, nil
}

// next notes a request and returns how it is answered.
func (a *answers) next(r *http.Request, body string) answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.sent, a.body = append(a.at, time.Now()), append(a.sent, r), append(a.body, body)
	now := answer{status: http.StatusNoContent}
	if len(a.list) > 0 {
		now, a.list = a.list[0], a.list[1:]
	}
	return now
}

// gaps are the times between attempts.
func (a *answers) gaps() []time.Duration {
	var out []time.Duration
	for i := 1; i < len(a.at); i++ {
		out = append(out, a.at[i].Sub(a.at[i-1]))
	}
	return out
}

func fakeClient(a *answers) *client {
	return &client{http: a, cfg: &Config{Timeout: 10 * time.Second, UserAgent: "test"}, keys: [][]byte{[]byte("0123456789abcdef")}}
}

func fakeRequest() *request {
	return &request{id: "shop:1:0:5:1", url: &url.URL{Scheme: "https", Host: "api.example", Path: "/secret"}, body: []byte("{}")}
}

func quiet(int, error) {}

func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{list: []answer{{status: 500}, {err: syscall.ECONNRESET}, {status: 408}, {status: 425}, {hangs: true}, {status: 302, header: "Location: http://169.254.169.254/"},
			{status: 200, body: io.MultiReader(strings.NewReader("half"), brokenReader{})}, {status: 599}}}
		if err := fakeClient(a).send(t.Context(), t.Context(), fakeRequest(), quiet); err != nil {
			t.Fatal(err)
		}
		most := pauseFirst
		for i, gap := range a.gaps() {
			if i == 4 {
				gap -= 10 * time.Second // the one that hung, until the timeout
			}
			if gap < most/2 || gap > most {
				t.Errorf("pause %d is %v, want between %v and %v", i+1, gap, most/2, most)
			}
			most = min(2*most, pauseMost)
		}
		if len(a.at) != 9 {
			t.Errorf("%d attempts, want 9", len(a.at))
		}
		for i, r := range a.sent {
			first := a.sent[0].Header
			if a.body[i] != "{}" || r.Header.Get("Webhook-Id") != "shop:1:0:5:1" || r.Method != "POST" || r.URL.Host != "api.example" {
				t.Errorf("attempt %d is another request: %v %s", i, r, a.body[i])
			}
			if i > 0 && a.at[i].Unix() != a.at[0].Unix() && r.Header.Get("Webhook-Signature") == first.Get("Webhook-Signature") {
				t.Errorf("attempt %d has the signature of the first one's time", i)
			}
			if want := signatures([][]byte{[]byte("0123456789abcdef")}, "shop:1:0:5:1", a.at[i].Unix(), []byte("{}")); r.Header.Get("Webhook-Signature") != want {
				t.Errorf("attempt %d is signed %s, want %s", i, r.Header.Get("Webhook-Signature"), want)
			}
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) func() string {
			return func() string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		}
		text := func(s string) func() string { return func() string { return s } }
		for _, c := range []struct {
			status      int
			after       func() string
			least, most time.Duration
		}{
			{429, text("7"), 7 * time.Second, 7 * time.Second},
			{503, in(90 * time.Second), 89 * time.Second, 90 * time.Second},
			{500, text("3"), 3 * time.Second, 3 * time.Second},
			{429, text("86400"), pauseLongest, pauseLongest},
			{429, in(48 * time.Hour), pauseLongest, pauseLongest},
			{429, in(-time.Hour), pauseFirst / 2, pauseFirst},
			{429, text("99999999999999999999"), pauseFirst / 2, pauseFirst},
			{429, text("-5"), pauseFirst / 2, pauseFirst},
			{429, text("soon"), pauseFirst / 2, pauseFirst},
			{429, text(""), pauseFirst / 2, pauseFirst},
		} {
			header := "Retry-After: " + c.after()
			a := &answers{list: []answer{{status: c.status, header: header}}}
			if err := fakeClient(a).send(t.Context(), t.Context(), fakeRequest(), quiet); err != nil {
				t.Fatal(err)
			}
			if gap := a.gaps()[0]; gap < c.least || gap > c.most {
				t.Errorf("%d %s: waited %v, want %v to %v", c.status, header, gap, c.least, c.most)
			}
		}
	})
}

// Who is asked to wait lets all requests wait.
func TestTooManyRequestsHoldsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{list: []answer{{status: 429, header: "Retry-After: 60"}}}
		c := fakeClient(a)
		c.hold(0)
		began := time.Now()
		done := make(chan error)
		go func() { done <- c.send(t.Context(), t.Context(), fakeRequest(), quiet) }()
		synctest.Wait()
		if err := c.send(t.Context(), t.Context(), fakeRequest(), quiet); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < time.Minute {
			t.Errorf("another request was sent after %v", waited)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// Trying ends after a time, with an error that is not for good; a cancelled context ends it
// at once.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{}
		for range 1000 {
			a.list = append(a.list, answer{status: 502})
		}
		began := time.Now()
		tries := 0
		err := fakeClient(a).send(t.Context(), t.Context(), fakeRequest(), func(int, error) { tries++ })
		if took := time.Since(began); err == nil || sinks.IsFatal(err) || sinks.CodeOf(err) != sinks.CodeEnvironment || sinks.HintOf(err) == "" || took < patience || took > patience+pauseMost {
			t.Errorf("after %v: %v, hint %q", took, err, sinks.HintOf(err))
		}
		if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "https://api.example: the target answered 502 Bad Gateway") {
			t.Errorf("the error is %q", err)
		}
		if tries != len(a.at)-1 {
			t.Errorf("told of %d failures, %d attempts", tries, len(a.at))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if err := fakeClient(a).send(ctx, ctx, fakeRequest(), quiet); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, status := range []int{400, 403, 404, 405, 409, 410, 413, 415, 422, 451} {
		a := &answers{list: []answer{{status: status}}}
		var no *refusal
		if err := fakeClient(a).send(t.Context(), t.Context(), fakeRequest(), quiet); !errors.As(err, &no) || no.status != status || len(a.at) != 1 {
			t.Errorf("%d: %v after %d attempts", status, err, len(a.at))
		}
	}
	for _, status := range []int{401, 407} {
		a := &answers{list: []answer{{status: status}}}
		if err := fakeClient(a).send(t.Context(), t.Context(), fakeRequest(), quiet); !sinks.IsFatal(err) || sinks.CodeOf(err) != sinks.CodeEnvironment || len(a.at) != 1 {
			t.Errorf("%d: %v after %d attempts", status, err, len(a.at))
		}
	}
}

// What the other side sends is in no error.
func TestErrorsShowNothingOfTheAnswer(t *testing.T) {
	for _, said := range []string{"-ERR canary-4711\r\n", "HTTP/1.1 canary-4711 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncanary-4711\r\n\r\n", "HTTP/1.1 500 canary-4711\r\nContent-Length: 11\r\n\r\ncanary-4711",
		"HTTP/1.1 302 Found\r\nLocation: http://canary-4711/\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: canary-4711\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncanary-4711"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 4096)); err == nil {
				_, _ = conn.Write([]byte(said)) // who does not get it fails the test by its error
			}
		}()
		cfg := Config{URL: "http://" + l.Addr().String() + "/hidden-0815", Allow: []string{"127.0.0.1/32"}, Concurrency: 1, Timeout: time.Minute}
		to, problems := cfg.compile()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		c := newClient(&cfg, to, to.guard.dialer())
		err = c.attempt(t.Context(), &request{url: to.base, body: []byte("{}")})
		c.close()
		l.Close()
		<-done
		if err == nil || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "0815") || strings.Contains(sinks.HintOf(err), "canary") {
			t.Errorf("%q: the error is %v", said, err)
		}
	}
}
