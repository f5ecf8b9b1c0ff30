package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
)

// Config says where the brokers are and how to speak to them.
type Config struct {
	Brokers  []string       // host:port of those to begin with; port 9092 if left out
	ClientID string         // what brokers call us in their logs; default "tailrace"
	TLS      *tls.Config    // nil: no TLS
	SASL     sasl.Mechanism // nil: no SASL
	// Timeout is for how long calls other than Produce are tried again while a
	// broker cannot be reached or cannot answer; default one minute.
	Timeout time.Duration
	// ConnectionLife is for how long a connection with SASL is used, since a
	// session cannot be authenticated again. It should be below the broker's
	// connections.max.reauth.ms; default ten minutes.
	ConnectionLife time.Duration
	Log            *slog.Logger // nil: silent
}

// A Client speaks to one Kafka cluster. It may be used by many goroutines.
type Client struct {
	brokers   string
	timeout   time.Duration
	transport *transport
	layout    layout
	ends      ends
	log       *slog.Logger
	closed    atomic.Bool
}

// NewClient returns a client. It connects to nothing yet; its error is about
// the configuration.
func NewClient(cfg Config) (*Client, error) {
	brokers, err := addresses(cfg.Brokers)
	if err != nil {
		return nil, err
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "tailrace"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.ConnectionLife <= 0 {
		cfg.ConnectionLife = 10 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		brokers:   strings.Join(brokers, ","),
		timeout:   cfg.Timeout,
		transport: newTransport(cfg.ClientID, cfg.TLS, cfg.SASL, cfg.ConnectionLife),
		log:       cfg.Log,
	}, nil
}

// addresses returns list with ports.
func addresses(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, errors.New("no brokers are given")
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		s = strings.TrimSpace(s)
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = strings.Trim(s, "[]"), "9092"
		}
		if host == "" || strings.ContainsAny(host, ",/") {
			return nil, fmt.Errorf("broker address %q is not host:port", s)
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	return out, nil
}

// Close ends all connections. Calls that are under way fail with ErrClosed or
// an error of the network.
func (c *Client) Close() {
	if !c.closed.Swap(true) {
		c.transport.close()
	}
}

// Ping makes one round trip to a broker.
func (c *Client) Ping(ctx context.Context) error {
	return c.retry(ctx, c.timeout, func(ctx context.Context) error { return c.refresh(ctx, nil) })
}

// send sends msg to the broker at addr and returns its answer, once.
func (c *Client) send(ctx context.Context, op, addr string, msg protocol.Message, wait time.Duration) (protocol.Message, error) {
	if c.closed.Load() {
		return nil, fmt.Errorf("%s: %w", op, ErrClosed)
	}
	return c.transport.send(ctx, op, addr, msg, wait)
}

// retry calls fn until it succeeds, fails with something that is not to be
// tried again, or limit has passed. The last error is returned.
func (c *Client) retry(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	pause := newBackoff(limit)
	for {
		err := fn(ctx)
		if err == nil {
			return nil
		}
		if err := pause.wait(ctx, err); err != nil {
			return err
		}
	}
}

const (
	backoffFirst = 2 * time.Millisecond
	backoffMost  = 500 * time.Millisecond
	// topicPatience is for how long a topic is asked for again that the brokers
	// say is not there: one just made is not known to all of them at once.
	topicPatience = 5 * time.Second
)

// backoff waits between attempts: longer each time, by chance, up to half a
// second, and not beyond a limit.
type backoff struct {
	limit   time.Duration
	begin   time.Time
	missing time.Time // since when the answer is that there is no such topic
	next    time.Duration
}

func newBackoff(limit time.Duration) *backoff { return &backoff{limit: limit, begin: time.Now()} }

// wait sleeps before the next attempt. If there is to be none it returns why,
// which is err, or ctx's error.
func (b *backoff) wait(ctx context.Context, err error) error {
	e, again := retriable(err)
	if !again {
		return err
	}
	now := time.Now()
	if e.Code != codeUnknownTopic {
		b.missing = time.Time{}
	} else if b.missing.IsZero() {
		b.missing = now
	} else if now.Sub(b.missing) > topicPatience {
		return e.final()
	}
	if now.Sub(b.begin) >= b.limit {
		if e.Code == codeUnknownTopic {
			return e.final()
		}
		return err
	}
	b.next = min(max(backoffFirst, b.next*2), backoffMost)
	if !sleep(ctx, b.next/2+rand.N(b.next)) {
		return fmt.Errorf("%s: %w (before: %v)", e.Op, context.Cause(ctx), err)
	}
	return nil
}

// sleep waits for d, and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
