package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// request is what is sent, as often as it takes: id and body stay the same.
type request struct {
	id     string
	url    *url.URL
	header []attribute
	body   []byte
}

// one returns the request of a single event.
func one(e *event) *request { return &request{e.id, e.url, e.header, e.body} }

// several returns the request of a batch: a JSON array of structured events. Its id is made
// of theirs, so that a batch with other events, after a crash, has another one.
func several(events []*event) *request {
	h := sha256.New()
	r := &request{url: events[0].url, body: []byte{'['}}
	for i, e := range events {
		if i > 0 {
			r.body = append(r.body, ',')
		}
		r.body = append(r.body, e.body...)
		h.Write([]byte(e.id + "\n"))
	}
	r.body = append(r.body, ']')
	r.id = "batch:" + hex.EncodeToString(h.Sum(nil)[:16])
	for _, a := range events[0].header {
		if a.name == "Content-Type" {
			a.value = typeBatch
		}
		r.header = append(r.header, a)
	}
	return r
}

// client sends requests to the target.
type client struct {
	http  http.RoundTripper
	cfg   *Config
	keys  [][]byte
	close func()

	mu    sync.Mutex
	until time.Time // the target has asked to be left alone until then
}

// maxAnswer bounds how much of an answer's body is read. Nobody looks at it: it is read so
// that the connection can be used again, and to see that the answer is complete.
const maxAnswer = 64 << 10

// newClient returns a client that connects to where the guard allows it. It follows no
// redirect, keeps no cookies, and asks no proxy, whatever the environment says.
func newClient(cfg *Config, to *compiled, d *net.Dialer) *client {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		config = cfg.TLS.Clone()
	}
	t := &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  cfg.Timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxConnsPerHost:        cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
	}
	return &client{http: t, cfg: cfg, keys: to.keys, close: t.CloseIdleConnections}
}

// refusal is an answer that trying again does not change.
type refusal struct{ status int }

func (e *refusal) Error() string { return "the target answered " + statusText(e.status) }

// Cause is the status, for a dead letter.
func (e *refusal) Cause() string { return strconv.Itoa(e.status) }

// failure is an attempt after which the next may succeed.
type failure struct {
	why   string
	hint  string
	after time.Duration // what the target asks for
}

func (e *failure) Error() string { return e.why }

// send sends a request until the target has acknowledged it, or trying, which ends with ctx,
// ends: then an attempt that is under way is still waited for. Its errors: a *refusal; an
// *Error or *blocked, which are for the operator; that of trying.
func (c *client) send(ctx, trying context.Context, r *request, failed func(attempt int, err error)) error {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		if !c.wait(trying) {
			return context.Cause(trying)
		}
		err := c.attempt(ctx, r)
		var f *failure
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &f):
			return err
		case trying.Err() != nil:
			return context.Cause(trying)
		case time.Since(began) > patience:
			return &Error{fmt.Errorf("deliver to %s: %w (%d attempts)", c.host(r), err, attempt), f.hint, false, sinks.CodeEnvironment}
		}
		failed(attempt, err)
		if !sleep(trying, max(pause(attempt), f.after)) {
			return context.Cause(trying)
		}
	}
}

// host names the target without what may be secret in its address.
func (c *client) host(r *request) string { return r.url.Scheme + "://" + r.url.Host }

// wait waits for as long as the target wants to be left alone.
func (c *client) wait(ctx context.Context) bool {
	c.mu.Lock()
	d := time.Until(c.until)
	c.mu.Unlock()
	return d <= 0 && ctx.Err() == nil || d > 0 && sleep(ctx, d)
}

// hold keeps all requests back.
func (c *client) hold(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := time.Now().Add(d); at.After(c.until) {
		c.until = at
	}
}

// attempt sends a request once. Only a complete answer with a status of 2xx is an
// acknowledgement: one that breaks off may come from somebody in between who does not know
// yet.
func (c *client) attempt(ctx context.Context, r *request) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req := (&http.Request{
		Method: http.MethodPost, URL: r.url, Host: r.url.Host, Header: make(http.Header), ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: int64(len(r.body)),
	}).WithContext(ctx)
	for _, a := range r.header {
		req.Header.Set(a.name, a.value)
	}
	unix := time.Now().Unix()
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Webhook-Id", r.id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(unix, 10))
	if len(c.keys) > 0 {
		req.Header.Set("Webhook-Signature", signatures(c.keys, r.id, unix, r.body))
	}
	res, err := c.http.RoundTrip(req)
	if err != nil {
		return plain(err)
	}
	defer res.Body.Close() // nothing more is wanted of it
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	return c.verdict(res, err)
}

// verdict says what an answer means; broken says that its body broke off.
func (c *client) verdict(res *http.Response, broken error) error {
	status := res.StatusCode
	after := retryAfter(res.Header, time.Now())
	switch {
	case status/100 == 2 && broken == nil:
		return nil
	case status/100 == 2:
		return &failure{why: "the answer broke off after " + statusText(status), hint: hintTarget}
	case status/100 == 3:
		return &failure{why: "the target answered " + statusText(status) + ", and redirects are not followed",
			hint: "write the address that the target redirects to into the configuration, if it is to be trusted", after: after}
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		c.hold(after)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status/100 == 5:
	case status == http.StatusUnauthorized, status == http.StatusProxyAuthRequired:
		return unfit("check the header authorization and the secrets of the sink; nothing is lost", "deliver: the target answered %s", statusText(status))
	case status/100 == 4:
		return &refusal{status}
	}
	return &failure{why: "the target answered " + statusText(status), hint: hintTarget, after: after}
}

const hintTarget = "the target must be up and take changes; nothing is lost, it is tried again"

// statusText is a status with its name; the target's own words are not shown.
func statusText(status int) string {
	if name := http.StatusText(status); name != "" {
		return strconv.Itoa(status) + " " + name
	}
	return strconv.Itoa(status)
}

// plain returns an error of a connection in words of ours: what the other side sent may be
// in the original.
func plain(err error) error {
	var b *blocked
	var dns *net.DNSError
	var errno syscall.Errno
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	what, hint := "the target's answer cannot be understood", "something that does not speak HTTP answers there, or TLS is spoken on one side only"
	switch {
	case errors.As(err, &b):
		return fmt.Errorf("connect to the target: %w", b)
	case errors.As(err, &dns):
		what, hint = "the target's name is not known", "check the name, and that this machine can resolve it"
		if dns.IsTimeout || dns.IsTemporary && !dns.IsNotFound {
			what = "the target's name could not be looked up"
		}
	case errors.As(err, &host):
		what, hint = "the target's certificate is for another name", "check the address"
	case errors.As(err, &authority):
		what, hint = "the target's certificate is by an authority that is not trusted", "name the authority's file in ca"
	case errors.As(err, &invalid), errors.As(err, &certificate):
		what, hint = "the target's certificate is not valid", "look at its dates and uses"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		what, hint = "the target did not answer in time", hintTarget
	case errors.As(err, &errno):
		what, hint = "the connection failed: "+errno.Error(), hintTarget
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		what, hint = "the target closed the connection before it answered", hintTarget
	}
	return &failure{why: what, hint: hint}
}
