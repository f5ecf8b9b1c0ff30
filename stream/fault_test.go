package stream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/stream"
)

// TestCodes injects each class of error code into each request that may get
// it, and checks that it is tried again, or what it becomes.
func TestCodes(t *testing.T) {
	retried := []*kerr.Error{
		kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NetworkException,
		kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
	}
	t.Run("produce", func(t *testing.T) {
		cluster, addr := startCluster(t, kfake.NumBrokers(1))
		c := newClient(t, addr)
		topic := newTopic(t, c, 1, nil)
		p := newProducer(t, c, stream.ProducerConfig{})
		var want []string
		for _, e := range retried {
			h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: e, Count: 2})
			produce(t, p, batchOf(t, topic, 0, false, e.Message))
			want = append(want, e.Message)
			if h.Hits() != 2 {
				t.Errorf("%v was answered %d times", e, h.Hits())
			}
		}
		wantValues(t, c, topic, 0, want...)
		for _, f := range []struct {
			err   *kerr.Error
			is    error
			fatal bool
			hint  string
		}{
			{kerr.CorruptMessage, nil, true, ""},
			{kerr.InvalidRecord, nil, true, ""},
			{kerr.UnknownServerError, nil, false, ""},
			{kerr.OutOfOrderSequenceNumber, nil, false, ""},
			{kerr.UnknownProducerID, nil, false, ""},
			{kerr.InvalidProducerIDMapping, nil, false, ""},
			{kerr.InvalidTxnState, nil, false, ""},
			{kerr.InvalidProducerEpoch, stream.ErrFenced, true, "transactional id"},
			{kerr.ProducerFenced, stream.ErrFenced, true, "transactional id"},
			{kerr.TransactionAbortable, nil, false, ""},
			{kerr.MessageTooLarge, stream.ErrRecordTooLarge, true, "max.message.bytes"},
			{kerr.RecordListTooLarge, stream.ErrRecordTooLarge, true, "max.message.bytes"},
			{kerr.TopicAuthorizationFailed, stream.ErrNotAuthorized, true, "--operation WRITE --topic " + topic},
			{kerr.ClusterAuthorizationFailed, stream.ErrNotAuthorized, true, "IDEMPOTENT_WRITE"},
			{kerr.UnsupportedCompressionType, nil, true, ""},
		} {
			h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: f.err})
			err := newProducer(t, c, stream.ProducerConfig{}).Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "never")})
			if f.is == nil {
				f.is = err
			}
			wantError(t, err, f.is, f.fatal, f.hint)
			var e *stream.Error
			if !errors.As(err, &e) || e.Code != stream.Code(f.err.Code) || e.Topic != topic || e.Partition != 0 || h.Hits() != 1 {
				t.Errorf("%v became %+v after %d requests", f.err, e, h.Hits())
			}
			if e.Code.String() != f.err.Message {
				t.Errorf("%v is called %v", f.err, e.Code)
			}
		}
		wantValues(t, c, topic, 0, want...)
	})
	t.Run("duplicate", func(t *testing.T) {
		cluster, addr := startCluster(t, kfake.NumBrokers(1))
		c := newClient(t, addr)
		topic := newTopic(t, c, 1, nil)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.DuplicateSequenceNumber})
		produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "there already"))
	})
	t.Run("read", func(t *testing.T) {
		cluster, addr := startCluster(t, kfake.NumBrokers(1))
		c := newClient(t, addr)
		topic := newTopic(t, c, 1, nil)
		produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "a"))
		for _, e := range []*kerr.Error{
			kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
			kerr.OffsetNotAvailable, kerr.ReplicaNotAvailable, kerr.KafkaStorageError,
		} {
			h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets}, Topic: topic, Err: e, Count: 3})
			wantValues(t, c, topic, 0, "a")
			if h.Hits() != 3 {
				t.Errorf("%v was answered %d times", e, h.Hits())
			}
		}
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.TopicAuthorizationFailed})
		_, err := c.Fetch(testContext(t), topic, 0, 0, stream.FetchOptions{})
		wantError(t, err, stream.ErrNotAuthorized, true, "--operation READ --topic "+topic)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.OffsetOutOfRange})
		_, err = c.Fetch(testContext(t), topic, 0, 0, stream.FetchOptions{})
		wantError(t, err, stream.ErrOffsetOutOfRange, true, "")
	})
	t.Run("transaction", func(t *testing.T) {
		cluster, addr := startCluster(t, kfake.NumBrokers(1))
		c := newClient(t, addr)
		topic := newTopic(t, c, 1, nil)
		var want []string
		again := []*kerr.Error{
			kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.RequestTimedOut,
		}
		for _, e := range again {
			id := "again " + e.Message
			h := cluster.Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: id, Err: e, Count: 2},
				kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Topic: topic, Err: e, Count: 2},
				kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TxnID: id, Err: e, Count: 2})
			p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
			produce(t, p, batchOf(t, topic, 0, true, e.Message))
			end(t, p, true)
			want = append(want, e.Message)
			if h.Hits() != 6 {
				t.Errorf("%v was answered %d times", e, h.Hits())
			}
		}
		wantValues(t, c, topic, 0, want...)
		for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn} {
			for _, f := range []struct {
				err   *kerr.Error
				is    error
				fatal bool
				hint  string
			}{
				{kerr.ProducerFenced, stream.ErrFenced, true, "same transactional id"},
				{kerr.InvalidProducerEpoch, stream.ErrFenced, true, "same transactional id"},
				{kerr.TransactionalIDAuthorizationFailed, stream.ErrNotAuthorized, true, "--transactional-id"},
				{kerr.InvalidProducerIDMapping, nil, false, ""},
				{kerr.UnknownServerError, nil, false, ""},
			} {
				id := fmt.Sprint(key, f.err.Message)
				cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, TxnID: id, Err: f.err})
				err := oneTransaction(t, c, id, topic)
				if f.is == nil {
					f.is = err
				}
				wantError(t, err, f.is, f.fatal, f.hint)
				if !strings.Contains(err.Error(), id) {
					t.Errorf("%v does not name the transactional id", err)
				}
			}
		}
	})
}

// oneTransaction makes a producer, writes, and commits; it returns the first
// error.
func oneTransaction(t *testing.T, c *stream.Client, id, topic string) error {
	t.Helper()
	ctx := testContext(t)
	p, err := c.NewProducer(ctx, stream.ProducerConfig{TransactionalID: id})
	if err != nil {
		return err
	}
	if err := p.Produce(ctx, []*stream.Outgoing{batchOf(t, topic, 0, true, "never")}); err != nil {
		return err
	}
	return p.End(ctx, true)
}

// TestMoves moves leaders and coordinators all the time while three producers
// write, and checks that everything is there once and in order.
func TestMoves(t *testing.T) {
	cluster, addr := startCluster(t, kfake.NumBrokers(3))
	c := newClient(t, addr)
	const partitions = 6
	topic := newTopic(t, c, partitions, nil)
	stop := make(chan struct{})
	var movers, writers sync.WaitGroup
	movers.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				cluster.ShufflePartitionLeaders()
				cluster.RehashCoordinators()
			}
		}
	})
	want := make([][]string, partitions)
	for w := range 3 {
		id := ""
		if w < 2 {
			id = fmt.Sprint("mover ", w)
		}
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		writers.Go(func() {
			for i := range 150 {
				var out []*stream.Outgoing
				for part := 2 * w; part < 2*w+2; part++ { // each writer has partitions of its own
					v := fmt.Sprint(w, " ", i, " ", part)
					out = append(out, batchOf(t, topic, int32(part), id != "", v, v+"b"), batchOf(t, topic, int32(part), id != "", v+"c"))
					if id == "" || i%4 != 3 {
						want[part] = append(want[part], v, v+"b", v+"c")
					}
				}
				if err := errors.Join(p.Produce(testContext(t), out), p.End(testContext(t), i%4 != 3)); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	writers.Wait()
	for part := range int32(partitions) { // leaders still move
		wantValues(t, c, topic, part, want[part]...)
	}
	close(stop)
	movers.Wait()
}

// TestBrokerRestarts stops the embedded broker under a producer and a reader,
// and starts it again on the same port and directory.
func TestBrokerRestarts(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	b := startEmbedded(t, dir, "")
	addr := b.Addr()
	c := newClient(t, addr)
	topic := newTopic(t, c, 2, nil)
	p := newProducer(t, c, stream.ProducerConfig{})
	const rounds = 4
	wrote := make(chan int) // a batch was written; the number of the next
	var want []string
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(wrote)
		for i := range 40 * rounds {
			if err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, fmt.Sprint(i)), batchOf(t, topic, 1, false, fmt.Sprint(i))}); err != nil {
				t.Errorf("batch %d: %v", i, err)
				return
			}
			want = append(want, fmt.Sprint(i))
			wrote <- i + 1
		}
	})
	for n := range wrote {
		if n%40 == 20 {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = startEmbedded(t, dir, addr)
		}
	}
	writer.Wait()
	wantValues(t, c, topic, 0, want...)
	wantValues(t, c, topic, 1, want...)
}

func TestOutageIsRiddenOut(t *testing.T) {
	dir := t.TempDir()
	b := startEmbedded(t, dir, "")
	addr := b.Addr()
	c := newClient(t, addr)
	topic := newTopic(t, c, 1, nil)
	p := newProducer(t, c, stream.ProducerConfig{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "late")})
	}()
	select {
	case err := <-done:
		t.Fatalf("produce to a stopped broker: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	startEmbedded(t, dir, addr)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantValues(t, c, topic, 0, "late")
}

func TestOutageLastsTooLong(t *testing.T) {
	noLeaks(t)
	b := startEmbedded(t, t.TempDir(), "")
	c := newClientOf(t, stream.Config{Brokers: []string{b.Addr()}, Timeout: 200 * time.Millisecond})
	topic := newTopic(t, c, 1, nil)
	p := newProducer(t, c, stream.ProducerConfig{Timeout: 200 * time.Millisecond})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "never")})
	var e *stream.Error
	if !errors.As(err, &e) || e.Fatal() || !e.Environment() || !e.Temporary() || !strings.Contains(e.Hint(), b.Addr()) {
		t.Errorf("produce: %v", err)
	}
	if err := c.Ping(testContext(t)); !errors.As(err, &e) || !e.Environment() || !strings.Contains(err.Error(), b.Addr()) {
		t.Errorf("ping: %v", err)
	}
	if _, err := c.NewProducer(testContext(t), stream.ProducerConfig{Timeout: 50 * time.Millisecond}); err == nil {
		t.Error("a producer was made without a broker")
	}
}

// TestCancel cancels calls that wait for an answer which does not come. They
// return at once, their connections are closed, nothing is left behind.
func TestCancel(t *testing.T) {
	noLeaks(t)
	cluster, addr := startCluster(t, kfake.NumBrokers(1))
	c := newClient(t, addr)
	topic := newTopic(t, c, 1, nil)
	p := newProducer(t, c, stream.ProducerConfig{TransactionalID: "cancel"})
	for _, call := range []struct {
		key kmsg.Key
		do  func(ctx context.Context) error
	}{
		{kmsg.Fetch, func(ctx context.Context) error {
			_, err := c.Fetch(ctx, topic, 0, 0, stream.FetchOptions{})
			return err
		}},
		{kmsg.ListOffsets, func(ctx context.Context) error { _, err := c.Offsets(ctx, topic, 0); return err }},
		{kmsg.Metadata, func(ctx context.Context) error { return c.Ping(ctx) }},
		{kmsg.CreateTopics, func(ctx context.Context) error {
			_, err := c.EnsureTopic(ctx, stream.TopicSpec{Name: "other", Create: true})
			return err
		}},
		{kmsg.InitProducerID, func(ctx context.Context) error {
			_, err := c.NewProducer(ctx, stream.ProducerConfig{TransactionalID: "cancel 2"})
			return err
		}},
		{kmsg.Produce, func(ctx context.Context) error {
			return p.Produce(ctx, []*stream.Outgoing{batchOf(t, topic, 0, true, "a")})
		}},
	} {
		arrived := make(chan struct{})
		cluster.ControlKey(int16(call.key), func(kmsg.Request) (kmsg.Response, error, bool) {
			close(arrived)
			return nil, nil, true // no answer, ever
		})
		ctx, cancel := context.WithCancel(testContext(t))
		done := make(chan error)
		go func() { done <- call.do(ctx) }()
		<-arrived
		began := time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", call.key.Name(), err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%v: cancelled only after %v", call.key.Name(), took)
		}
	}
	if err := p.End(testContext(t), true); !errors.Is(err, context.Canceled) {
		t.Errorf("end after a cancelled produce: %v", err)
	}
}

func TestEndIsCancelled(t *testing.T) {
	cluster, addr := startCluster(t, kfake.NumBrokers(1))
	c := newClient(t, addr)
	topic := newTopic(t, c, 1, nil)
	p := newProducer(t, c, stream.ProducerConfig{TransactionalID: "cancel"})
	produce(t, p, batchOf(t, topic, 0, true, "a"))
	ctx, cancel := context.WithCancel(testContext(t))
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		return nil, nil, true // no answer, ever
	})
	err := p.End(ctx, true)
	if !errors.Is(err, stream.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("end: %v", err)
	}
}

func TestClose(t *testing.T) {
	noLeaks(t)
	cluster, addr := startCluster(t, kfake.NumBrokers(2))
	c := newClient(t, addr)
	topic := newTopic(t, c, 4, nil)
	p := newProducer(t, c, stream.ProducerConfig{})
	for part := range int32(4) {
		produce(t, p, batchOf(t, topic, part, false, "a"))
	}
	if n := c.OpenConnections(); n == 0 || n > 8 {
		t.Errorf("%d connections are open", n)
	}
	arrived := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(arrived)
		return nil, nil, true
	})
	done := make(chan error)
	go func() {
		_, err := c.Fetch(testContext(t), topic, 0, 1, stream.FetchOptions{})
		done <- err
	}()
	<-arrived
	c.Close()
	c.Close()
	if err := <-done; err == nil {
		t.Error("fetch went on over Close")
	}
	if n := c.OpenConnections(); n != 0 {
		t.Errorf("%d connections are open after Close", n)
	}
	if err := c.Ping(testContext(t)); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("ping after Close: %v", err)
	}
	if err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "a")}); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("produce after Close: %v", err)
	}
}

func TestUnsealedBatch(t *testing.T) {
	_, addr := startCluster(t, kfake.NumBrokers(1))
	c := newClient(t, addr)
	topic := newTopic(t, c, 1, nil)
	b := new(stream.Batch)
	if err := b.Append(1, nil, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if err := newProducer(t, c, stream.ProducerConfig{}).Produce(testContext(t), []*stream.Outgoing{{Topic: topic, Batch: b}}); err == nil {
		t.Error("an unsealed batch was written")
	}
	if err := newProducer(t, c, stream.ProducerConfig{}).Produce(testContext(t), nil); err != nil {
		t.Error(err)
	}
}

// TestManyLargeBatches writes more than one request may hold.
func TestManyLargeBatches(t *testing.T) {
	_, addr := startCluster(t, kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000000"}))
	c := newClient(t, addr)
	topic := newTopic(t, c, 5, nil)
	big := strings.Repeat("x", 9<<20)
	var out []*stream.Outgoing
	for part := range int32(5) {
		out = append(out, batchOf(t, topic, part, false, big), batchOf(t, topic, part, false, "small"))
	}
	produce(t, newProducer(t, c, stream.ProducerConfig{}), out...)
	for part := range int32(5) {
		wantValues(t, c, topic, part, big, "small")
	}
}

func TestCompactedTopic(t *testing.T) {
	cluster, addr := startCluster(t, kfake.NumBrokers(1))
	c := newClient(t, addr)
	topic := newTopic(t, c, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "1000", "retention.ms": "-1",
	})
	p := newProducer(t, c, stream.ProducerConfig{})
	for i := range 200 {
		produce(t, p, batchOf(t, topic, 0, false, fmt.Sprint(i%10)))
	}
	cluster.Compact() // moves the start, too
	var got []string
	var offsets []int64
	_, err := c.ReadToEnd(testContext(t), topic, 0, 0, func(*stream.Record) error { return nil })
	wantError(t, err, stream.ErrOffsetOutOfRange, true, "")
	next, err := c.ReadCompacted(testContext(t), topic, 0, 0, func(r *stream.Record) error {
		got, offsets = append(got, string(r.Value)), append(offsets, r.Offset)
		return nil
	})
	if err != nil || next != 200 {
		t.Fatalf("read to %d, %v", next, err)
	}
	if len(got) >= 200 || len(got) < 10 || !slices.IsSorted(offsets) {
		t.Errorf("%d records are left, at %v", len(got), offsets)
	}
	state, err := c.LoadState(testContext(t), topic)
	if err != nil || len(state) != 10 {
		t.Errorf("state has %d keys, %v", len(state), err)
	}
}

func TestAuthentication(t *testing.T) {
	acl := func(resource kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	cluster, addr := startCluster(t, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"),
		kfake.User("PLAIN", "reader", "pw", acl(kmsg.ACLResourceTypeTopic, "there", kmsg.ACLOperationRead), acl(kmsg.ACLResourceTypeTopic, "there", kmsg.ACLOperationDescribe)),
	)
	secret, err := scram.Mechanism(scram.SHA512, "admin", "secret")
	if err != nil {
		t.Fatal(err)
	}
	admin := newClientOf(t, stream.Config{Brokers: []string{addr}, SASL: secret})
	if _, err := admin.EnsureTopic(testContext(t), stream.TopicSpec{Name: "there", Partitions: 1, Create: true}); err != nil {
		t.Fatal(err)
	}
	produce(t, newProducer(t, admin, stream.ProducerConfig{}), batchOf(t, "there", 0, false, "a"))

	// kfake cuts the connection where brokers answer with a code.
	var refuse atomic.Bool
	refuse.Store(true)
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !refuse.Load() {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		res.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return res, nil, true
	})
	_, err = newClientOf(t, stream.Config{Brokers: []string{addr}, SASL: secret}).EnsureTopic(testContext(t), stream.TopicSpec{Name: "there"})
	wantError(t, err, stream.ErrNotAuthorized, true, "password")
	refuse.Store(false)

	reader := newClientOf(t, stream.Config{Brokers: []string{addr}, SASL: plain.Mechanism{Username: "reader", Password: "pw"}, Timeout: 2 * time.Second})
	wantValues(t, reader, "there", 0, "a")
	_, err = reader.NewProducer(testContext(t), stream.ProducerConfig{})
	wantError(t, err, stream.ErrNotAuthorized, true, "IDEMPOTENT_WRITE")
	_, err = reader.NewProducer(testContext(t), stream.ProducerConfig{TransactionalID: "mine"})
	wantError(t, err, stream.ErrNotAuthorized, true, "--transactional-id")
	_, err = reader.EnsureTopic(testContext(t), stream.TopicSpec{Name: "new", Partitions: 3, Create: true})
	wantError(t, err, stream.ErrNotAuthorized, true, "ACL")
	var e *stream.Error
	if !errors.As(err, &e) || !e.Environment() || !strings.Contains(e.Hint(), "kafka-topics.sh") {
		t.Errorf("create without permission: %v, hint %q", err, e.Hint())
	}
}

// TestConnectionLife checks that a connection with SASL is given up in time,
// and that no request fails by it.
func TestConnectionLife(t *testing.T) {
	_, addr := startCluster(t, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "secret"))
	c := newClientOf(t, stream.Config{Brokers: []string{addr}, SASL: plain.Mechanism{Username: "admin", Password: "secret"}, ConnectionLife: 20 * time.Millisecond})
	topic := newTopic(t, c, 1, nil)
	p := newProducer(t, c, stream.ProducerConfig{TransactionalID: "short"})
	var want []string
	for i := range 30 {
		produce(t, p, batchOf(t, topic, 0, true, fmt.Sprint(i)))
		time.Sleep(5 * time.Millisecond)
		end(t, p, true) // not known to have been sent would be an unknown outcome
		want = append(want, fmt.Sprint(i))
	}
	wantValues(t, c, topic, 0, want...)
}

// TestTLS checks both ends' certificates against nothing but what was given.
func TestTLS(t *testing.T) {
	server, roots := certificate(t)
	_, addr := startCluster(t, kfake.NumBrokers(1), kfake.TLS(server))
	trusting := newClientOf(t, stream.Config{Brokers: []string{addr}, TLS: &tls.Config{RootCAs: roots}})
	topic := newTopic(t, trusting, 1, nil)
	produce(t, newProducer(t, trusting, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "a"))
	wantValues(t, trusting, topic, 0, "a")
	for name, cfg := range map[string]*tls.Config{
		"unknown authority": {},
		"another name":      {RootCAs: roots, ServerName: "broker.example"},
	} {
		began := time.Now()
		err := newClientOf(t, stream.Config{Brokers: []string{addr}, TLS: cfg}).Ping(testContext(t))
		wantError(t, err, err, true, "certificate")
		if time.Since(began) > 5*time.Second {
			t.Errorf("%s: tried for %v", name, time.Since(began))
		}
	}
	err := newClientOf(t, stream.Config{Brokers: []string{addr}, Timeout: time.Second}).Ping(testContext(t))
	wantError(t, err, err, false, "TLS")
}

// certificate makes a certificate for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func TestBrokerAddresses(t *testing.T) {
	for _, bad := range [][]string{nil, {""}, {"a,b:9092"}, {"http://a:1"}} {
		if _, err := stream.NewClient(stream.Config{Brokers: bad}); err == nil {
			t.Errorf("%q were taken as brokers", bad)
		}
	}
	_, addr := startCluster(t, kfake.NumBrokers(1))
	c := newClientOf(t, stream.Config{Brokers: []string{"127.0.0.1:1", " " + addr}})
	for range 5 {
		if err := c.Ping(testContext(t)); err != nil {
			t.Errorf("one of two brokers is down: %v", err)
		}
	}
}

func TestErrorsNameThemselves(t *testing.T) {
	if got := stream.Code(19).String(); got != "NOT_ENOUGH_REPLICAS" {
		t.Errorf("19 is %s", got)
	}
	if got := stream.Code(999).String(); got != "error code 999" {
		t.Errorf("999 is %s", got)
	}
	for _, e := range []*kerr.Error{kerr.UnknownServerError, kerr.NotLeaderForPartition, kerr.InvalidTxnState} {
		if name := stream.Code(e.Code).String(); name != e.Message && e != kerr.NotLeaderForPartition {
			t.Errorf("%d is %s, want %s", e.Code, name, e.Message)
		}
	}
}
