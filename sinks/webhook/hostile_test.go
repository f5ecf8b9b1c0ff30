package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// testSecret signs the requests of the tests.
const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hostile is a target that breaks every rule, and writes down what reaches it.
type hostile struct {
	tb     testing.TB
	server *httptest.Server
	inside *httptest.Server // what redirects lead to
	lured  atomic.Int64     // requests that went there
	rate   float64          // of requests that are treated badly

	mu       sync.Mutex
	rng      *rand.Rand
	arrivals []arrival
	requests int
	latest   time.Time       // of the last request
	acked    map[string]bool // ids
	faults   map[string]int
	forged   []string // requests that are not signed, or not by us
}

// arrival is an event that reached the target.
type arrival struct {
	id, body string
	life     string // which process sent it
	request  int    // in which request it came
	acked    bool   // a complete answer 2xx was written
}

func newHostile(tb testing.TB, seed uint64, rate float64) *hostile {
	h := &hostile{tb: tb, rate: rate, rng: rand.New(rand.NewPCG(seed, 1)), faults: map[string]int{}, acked: map[string]bool{}}
	h.server = httptest.NewServer(h)
	h.inside = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { h.lured.Add(1) }))
	tb.Cleanup(h.inside.Close)
	tb.Cleanup(h.server.Close)
	return h
}

// ServeHTTP notes the events of a request, then treats it well or badly.
func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has gone: nothing arrived
	}
	fault, from, to := h.take(r, body)
	x := &exchange{h: h, w: w, r: r, ack: func() { h.ack(from, to) }}
	if treat := faults[fault]; treat != nil {
		treat(x)
		return
	}
	x.ack()
	w.WriteHeader(http.StatusNoContent)
}

// exchange is one request and its answer. ack is called before the sender can know that the
// answer is complete, if it is an acknowledgement.
type exchange struct {
	h   *hostile
	w   http.ResponseWriter
	r   *http.Request
	ack func()
}

// take notes what arrived, and draws how it is treated: "" is well.
func (h *hostile) take(r *http.Request, body []byte) (fault string, from, to int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !signed(r.Header, body) {
		h.forged = append(h.forged, r.Header.Get("webhook-id"))
	}
	from = len(h.arrivals)
	h.requests++
	h.latest = time.Now()
	for _, e := range eventsOf(r, body) {
		h.arrivals = append(h.arrivals, arrival{id: e.id, body: e.body, life: r.Header.Get("x-life"), request: h.requests})
	}
	if h.rng.Float64() < h.rate {
		fault = faultNames[h.rng.IntN(len(faultNames))]
		h.faults[fault]++
	}
	return fault, from, len(h.arrivals)
}

func (h *hostile) ack(from, to int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := from; i < to; i++ {
		h.arrivals[i].acked = true
		h.acked[h.arrivals[i].id] = true
	}
}

// seen returns what has arrived so far.
func (h *hostile) seen() []arrival {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]arrival(nil), h.arrivals...)
}

// count is how many requests have arrived.
func (h *hostile) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests
}

// still says whether nothing has arrived for so long.
func (h *hostile) still(d time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.latest) > d
}

// complete says whether so many events were acknowledged.
func (h *hostile) complete(events int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acked) >= events
}

// signed checks a request as a receiver does, in words of its own.
func signed(header http.Header, body []byte) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(testSecret, "whsec_"))
	if err != nil {
		return false
	}
	at, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", header.Get("webhook-id"), at, body)
	for one := range strings.FieldsSeq(header.Get("webhook-signature")) {
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
		if err == nil && hmac.Equal(given, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

type idBody struct{ id, body string }

// eventsOf takes a request apart, in whatever mode it is.
func eventsOf(r *http.Request, body []byte) []idBody {
	if r.Header.Get("content-type") == "application/json" {
		return []idBody{{r.Header.Get("ce-id"), string(body)}}
	}
	list := []json.RawMessage{body}
	if r.Header.Get("content-type") == "application/cloudevents-batch+json" && json.Unmarshal(body, &list) != nil {
		return []idBody{{"not JSON", string(body)}}
	}
	var out []idBody
	for _, one := range list {
		var e struct {
			ID   string
			Data json.RawMessage
		}
		if json.Unmarshal(one, &e) != nil {
			e.ID = "not JSON"
		}
		out = append(out, idBody{e.ID, string(one)})
	}
	return out
}

// faultNames are those of faults, in a fixed order; the cheap ones come up more often.
var faultNames = []string{"500", "500", "502", "503", "closed", "closed", "garbage", "redirect", "redirect", "reset after 200", "reset after 200", "half a body", "slow body", "huge body", "429", "408", "425", "hang", "never ends"}

// faults are how a request may be treated badly.
var faults = map[string]func(x *exchange){
	"500": status(500), "502": status(502), "503": status(503), "408": status(408), "425": status(425),
	"429": func(x *exchange) {
		x.w.Header().Set("Retry-After", time.Now().UTC().Format(http.TimeFormat)) // at once
		x.w.WriteHeader(http.StatusTooManyRequests)
	},
	"redirect": func(x *exchange) {
		http.Redirect(x.w, x.r, x.h.inside.URL+"/latest/meta-data/", []int{301, 302, 303, 307, 308}[time.Now().Nanosecond()%5])
	},
	"hang":            func(x *exchange) { <-x.r.Context().Done() },
	"closed":          cut("", false),
	"garbage":         cut("-ERR unknown command 'POST' canary-4711\r\n", false),
	"reset after 200": cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", true),
	"half a body":     cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
	"slow body": func(x *exchange) {
		if drip(x, 5) {
			x.ack()
		}
	},
	"never ends": func(x *exchange) { drip(x, 1<<30) },
	"huge body": func(x *exchange) {
		x.ack()
		_, _ = x.w.Write(make([]byte, 1<<20)) // the sender reads as much as it wants
	},
}

func status(code int) func(*exchange) {
	return func(x *exchange) {
		x.w.WriteHeader(code)
		_, _ = io.WriteString(x.w, "canary-4711") // must not be shown
	}
}

// drip writes a byte every 10 ms, and says whether all of them went out.
func drip(x *exchange, bytes int) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range bytes {
		if _, err := x.w.Write([]byte{' '}); err != nil || http.NewResponseController(x.w).Flush() != nil {
			return false
		}
		select {
		case <-tick.C:
		case <-x.r.Context().Done():
			return false
		}
	}
	return true
}

// cut writes bytes of its own and closes the connection, or resets it.
func cut(said string, reset bool) func(*exchange) {
	return func(x *exchange) {
		conn, _, err := http.NewResponseController(x.w).Hijack()
		if err != nil {
			x.h.tb.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, said) // the sender may have gone
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
	}
}
