package stream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A broker is what a test of the suite runs against.
type broker struct {
	name         string
	addr         string
	transactions bool
}

// forEachBroker runs test against the embedded broker, a cluster of three
// kfakes, and Apache Kafka.
func forEachBroker(t *testing.T, test func(t *testing.T, b broker)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		b := startEmbedded(t, t.TempDir(), "127.0.0.1:0")
		test(t, broker{"embedded", b.Addr(), false})
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		_, addr := startCluster(t, kfake.NumBrokers(3))
		test(t, broker{"cluster", addr, true})
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, broker{"kafka", testenv.SharedKafka(t), true})
	})
}

// forEachTransactional leaves out the embedded broker, which refuses
// transactions.
func forEachTransactional(t *testing.T, test func(t *testing.T, b broker)) {
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		_, addr := startCluster(t, kfake.NumBrokers(3))
		test(t, broker{"cluster", addr, true})
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, broker{"kafka", testenv.SharedKafka(t), true})
	})
}

func startEmbedded(t *testing.T, dir, listen string) *embedded.Broker {
	t.Helper()
	b, err := embedded.Start(context.Background(), embedded.Config{Dir: dir, Listen: listen, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func startCluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

func newClient(t *testing.T, addr string) *stream.Client {
	t.Helper()
	return newClientOf(t, stream.Config{Brokers: []string{addr}, Timeout: 20 * time.Second})
}

func newClientOf(t *testing.T, cfg stream.Config) *stream.Client {
	t.Helper()
	c, err := stream.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// testContext ends long before the test binary's own timeout.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newTopic creates a topic with a name of its own.
func newTopic(t *testing.T, c *stream.Client, partitions int32, config map[string]string) string {
	t.Helper()
	name := testenv.Unique("stream")
	all := map[string]string{"retention.ms": "-1"} // the tests' timestamps are old
	maps.Copy(all, config)
	info, err := c.EnsureTopic(testContext(t), stream.TopicSpec{Name: name, Partitions: partitions, Replication: 1, Config: all, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if !info.Created || info.Partitions != partitions {
		t.Fatalf("created topic is %+v", info)
	}
	return name
}

func newProducer(t *testing.T, c *stream.Client, cfg stream.ProducerConfig) *stream.Producer {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	p, err := c.NewProducer(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// batchOf returns a sealed batch with one record for each value; its key is
// the value too.
func batchOf(t *testing.T, topic string, partition int32, transactional bool, values ...string) *stream.Outgoing {
	t.Helper()
	return packedBatch(t, topic, partition, stream.None, transactional, values...)
}

func packedBatch(t *testing.T, topic string, partition int32, codec stream.Codec, transactional bool, values ...string) *stream.Outgoing {
	t.Helper()
	b := new(stream.Batch)
	for i, v := range values {
		if err := b.Append(int64(1000+i), []byte(v), []byte(v), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Seal(codec, transactional); err != nil {
		t.Fatal(err)
	}
	return &stream.Outgoing{Topic: topic, Partition: partition, Batch: b, Offset: -2}
}

func produce(t *testing.T, p *stream.Producer, out ...*stream.Outgoing) {
	t.Helper()
	if err := p.Produce(testContext(t), out); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, p *stream.Producer, commit bool) {
	t.Helper()
	if err := p.End(testContext(t), commit); err != nil {
		t.Fatal(err)
	}
}

// settle waits until no transaction is open in the partition. A broker answers
// the end of a transaction before it has written all of its markers.
func settle(t *testing.T, c *stream.Client, topic string, partition int32) stream.Offsets {
	t.Helper()
	o, err := c.WaitStable(testContext(t), topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// readValues returns the values of all committed records of a partition.
func readValues(t *testing.T, c *stream.Client, topic string, partition int32) []string {
	t.Helper()
	var got []string
	_, err := c.ReadToEnd(testContext(t), topic, partition, 0, func(r *stream.Record) error {
		got = append(got, string(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantValues(t *testing.T, c *stream.Client, topic string, partition int32, want ...string) {
	t.Helper()
	if got := readValues(t, c, topic, partition); !slices.Equal(got, want) {
		t.Fatalf("topic %s partition %d holds %s, want %s", topic, partition, short(got), short(want))
	}
}

func short(values []string) string {
	if len(values) <= 12 {
		return fmt.Sprint(values)
	}
	return fmt.Sprintf("%d values %v … %v", len(values), values[:4], values[len(values)-4:])
}

// wantError checks what an error is, what it says, and that its hint says hint.
func wantError(t *testing.T, err, is error, fatal bool, hint string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("error is %v, want one that is %v", err, is)
	}
	var e interface {
		Fatal() bool
		Hint() string
	}
	if !errors.As(err, &e) {
		t.Fatalf("error %v has no Fatal and Hint", err)
	}
	if e.Fatal() != fatal {
		t.Errorf("Fatal of %v is %v", err, e.Fatal())
	}
	if !strings.Contains(e.Hint(), hint) {
		t.Errorf("hint of %v is %q, want %q in it", err, e.Hint(), hint)
	}
}

// noLeaks checks at the test's end that no goroutine of ours, or of kafka-go,
// is left. It must be called first, and not in parallel tests.
func noLeaks(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

// A wire is what happens on connections by a test's wish.
type wire struct {
	mutex sync.Mutex
	lose  map[int16]int // by API key: how many answers are yet to be lost
	lost  map[int16]int
}

func newWire(c *stream.Client) *wire {
	w := &wire{lose: make(map[int16]int), lost: make(map[int16]int)}
	c.WrapConnections(func(nc net.Conn) net.Conn { return &wireConn{Conn: nc, wire: w} })
	return w
}

// loseAnswers has the connection cut after the broker has answered the next n
// requests with that key, and before the answer is seen.
func (w *wire) loseAnswers(key int16, n int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.lose[key] = n
}

func (w *wire) lostAnswers(key int16) int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.lost[key]
}

// takes says whether the answer to a request with that key is to be lost.
func (w *wire) takes(key int16) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.lose[key] == 0 {
		return false
	}
	w.lose[key]--
	w.lost[key]++
	return true
}

// wireConn knows the key of the request that is being answered: one request is
// on a connection at a time, and each begins with a write of its own.
type wireConn struct {
	net.Conn
	wire    *wire
	key     int16
	reading bool
}

func (c *wireConn) Write(b []byte) (int, error) {
	if !c.reading && len(b) >= 6 {
		c.key = int16(binary.BigEndian.Uint16(b[4:]))
	}
	c.reading = true
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	if c.reading && c.wire.takes(c.key) {
		if _, err := c.Conn.Read(b); err != nil {
			return 0, err
		}
		c.Conn.Close()
		return 0, io.EOF
	}
	c.reading = false
	return c.Conn.Read(b)
}
