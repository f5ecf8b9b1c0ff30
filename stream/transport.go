package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
)

// What requests are called in errors.
const (
	opMetadata      = "ask for metadata"
	opCoordinator   = "find coordinator"
	opInitProducer  = "initialise producer"
	opAddPartitions = "add partitions to transaction"
	opProduce       = "produce"
	opEndTxn        = "end transaction"
	opFetch         = "read"
	opListOffsets   = "list offsets"
	opCreateTopic   = "create topic"
	opDeleteTopic   = "delete topic"
	opDescribe      = "describe transaction"
)

const (
	dialTimeout    = 5 * time.Second
	connectTimeout = 10 * time.Second // dialling, TLS and SASL together
	answerTimeout  = 15 * time.Second // for what a broker answers at once; above the wait it is given
	brokerTimeout  = 10 * time.Second // what a broker is allowed to wait for its replicas or its controller
)

// transport sends one request to one broker, by address. Below it is kafka-go's
// Transport, of which we use the connections and the negotiation of versions
// only: each address is a pool of its own, whose control connections carry
// everything. So requests go where we say, which is what our own metadata
// says, and never where a cached layout or an unchecked FindCoordinator would
// send them; a stale layout cannot exist, and no answer of ours passes the
// places where kafka-go waits for topics to appear in it.
type transport struct {
	kafka    kafka.Transport
	clientID string
	ids      atomic.Int32 // correlation ids
	dialer   dialer
}

func newTransport(clientID string, tc *tls.Config, mechanism sasl.Mechanism, life time.Duration) *transport {
	t := &transport{clientID: clientID}
	t.dialer.conns = make(map[*conn]struct{})
	if mechanism != nil {
		t.dialer.life = life
	}
	t.kafka = kafka.Transport{
		Dial:        t.dialer.dial,
		DialTimeout: connectTimeout,
		ClientID:    clientID,
		TLS:         tc,
		SASL:        mechanism,
		// The pools ask for metadata by themselves and we read none of it: ask
		// for no topic, seldom. (An empty list, not nil, which is all topics.)
		MetadataTopics: []string{},
		MetadataTTL:    30 * time.Second,
	}
	return t
}

// close ends every connection.
func (t *transport) close() {
	t.kafka.CloseIdleConnections()
	t.dialer.close()
}

// send sends msg to one of the brokers at addr, which may be a list with
// commas, and returns the answer. It gives up after wait. Its error is ctx's if
// that has ended, else an *Error that says whether msg may have arrived.
func (t *transport) send(ctx context.Context, op, addr string, msg protocol.Message, wait time.Duration) (protocol.Message, error) {
	// Only a deadline reaches kafka-go's sockets: a plain cancel would leave a
	// connection that waits for ever.
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	x := &exchange{msg: msg, clientID: t.clientID, id: t.ids.Add(1), written: make(chan struct{})}
	defer context.AfterFunc(ctx, x.interrupt)()
	res, err := t.kafka.RoundTrip(limited, brokerAddr(addr), x)
	if err == nil {
		return res.(*answer).Message, nil
	}
	sent := !x.giveUp()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	if errors.Is(err, ErrClosed) {
		return nil, fmt.Errorf("%s: %w", op, ErrClosed)
	}
	if errors.Is(err, errConnTooOld) {
		sent = false
	}
	return nil, unreached(op, addr, sent, err)
}

// brokerAddr is a net.Addr of one or more host:port with commas between.
type brokerAddr string

// Network names a network for each address, as kafka-go wants it.
func (a brokerAddr) Network() string {
	return "tcp" + strings.Repeat(",tcp", strings.Count(string(a), ","))
}

func (a brokerAddr) String() string { return string(a) }

// An exchange is one request on its way. It writes and reads by itself
// (protocol.RawExchanger), so that kafka-go gives it the next free connection
// and looks into neither the request nor the answer. It also knows what
// kafka-go does not say: whether the request was ever begun to be written, and
// when its bytes are no longer read.
type exchange struct {
	msg      protocol.Message
	clientID string
	id       int32
	version  int16
	unknown  bool          // the broker does not know the API
	written  chan struct{} // closed when msg is no longer touched, if it was begun

	mutex   sync.Mutex
	begun   bool           // from here on the broker may have it
	givenUp bool           // the caller has gone
	conn    deadlineSetter // what it is written to, while it is under way
}

type deadlineSetter interface{ SetDeadline(time.Time) error }

var (
	_          protocol.RawExchanger = (*exchange)(nil)
	errGivenUp                       = errors.New("request was given up before it was sent")
)

// ApiKey is the request's.
func (x *exchange) ApiKey() protocol.ApiKey { return x.msg.ApiKey() }

// Required notes the version that was negotiated for the connection.
func (x *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	version, known := versions[x.msg.ApiKey()]
	x.version, x.unknown = version, !known
	return true
}

// RawExchange writes the request and reads the answer. No other request uses
// the connection meanwhile. After an error kafka-go closes it.
func (x *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if !x.begin(rw) {
		return nil, errGivenUp
	}
	defer x.end()
	id, res, err := x.roundTrip(rw)
	if err != nil {
		return nil, err
	}
	if id != x.id {
		return nil, fmt.Errorf("read answer: it belongs to request %d, not to %d", id, x.id)
	}
	return &answer{res}, nil
}

func (x *exchange) roundTrip(rw io.ReadWriter) (id int32, res protocol.Message, err error) {
	if m, ok := x.msg.(handmade); ok {
		if x.unknown {
			close(x.written)
			return 0, nil, kafka.UnsupportedVersion
		}
		return roundTripHandmade(rw, m, x.id, x.clientID, func() { close(x.written) })
	}
	if err := x.write(rw); err != nil {
		return 0, nil, fmt.Errorf("write request: %w", err)
	}
	if id, res, err = protocol.ReadResponse(rw, x.msg.ApiKey(), x.version); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return id, res, nil
}

func (x *exchange) write(w io.Writer) error {
	defer close(x.written)
	if p, ok := x.msg.(protocol.PreparedMessage); ok {
		p.Prepare(x.version)
	}
	return protocol.WriteRequest(w, x.version, x.id, x.clientID, x.msg)
}

func (x *exchange) begin(rw io.ReadWriter) bool {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.givenUp {
		return false
	}
	x.begun = true
	x.conn, _ = rw.(deadlineSetter)
	return true
}

func (x *exchange) end() {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	x.conn = nil
}

// interrupt ends what is under way: a cancelled context would not reach the
// socket otherwise.
func (x *exchange) interrupt() {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.conn != nil {
		x.conn.SetDeadline(time.Unix(1, 0))
	}
}

// giveUp makes sure that the request is not begun any more, and returns true,
// or, if it was begun, ends it, waits until its bytes are no longer read, and
// returns false.
func (x *exchange) giveUp() bool {
	x.mutex.Lock()
	x.givenUp = true
	begun := x.begun
	x.mutex.Unlock()
	if !begun {
		return true
	}
	x.interrupt()
	<-x.written
	return false
}

// answer hides the type of an answer from kafka-go, which would act upon some.
type answer struct{ protocol.Message }

// dialer opens connections and can close all of them at once.
type dialer struct {
	net    net.Dialer
	life   time.Duration // 0: for ever
	mutex  sync.Mutex
	closed bool
	conns  map[*conn]struct{}
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, dialer: d, between: true}
	if d.life > 0 {
		c.expires = time.Now().Add(d.life)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.closed {
		nc.Close()
		return nil, ErrClosed
	}
	d.conns[c] = struct{}{}
	return c, nil
}

func (d *dialer) close() {
	d.mutex.Lock()
	conns := d.conns
	d.conns, d.closed = nil, true
	d.mutex.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}

func (d *dialer) forget(c *conn) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.conns, c)
}

// conn is a connection that is not used beyond its time. kafka-go does not
// authenticate again when a broker's session ends (KIP-368), so a connection
// has to be given up before. It is given up between two requests only, by one
// goroutine: the one that uses it.
type conn struct {
	net.Conn
	dialer  *dialer
	expires time.Time // zero: never
	between bool      // nothing was written since the last read
}

var errConnTooOld = errors.New("connection has reached its age")

func (c *conn) Write(b []byte) (int, error) {
	if c.between && !c.expires.IsZero() && time.Now().After(c.expires) {
		return 0, errConnTooOld
	}
	c.between = false
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	c.between = true
	return c.Conn.Read(b)
}

func (c *conn) Close() error {
	c.dialer.forget(c)
	return c.Conn.Close()
}
