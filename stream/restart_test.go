package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// A counter writes the numbers from 0 on, two to a transaction, into two
// partitions. After any error it does what a recovery does: a new producer,
// wait for what was left open, look at what is committed, go on behind that.
type counter struct {
	client     *stream.Client
	topic, id  string
	next       int
	recoveries int
}

func (c *counter) run(ctx context.Context, until int) error {
	for c.next < until {
		if err := c.begin(ctx, until); err != nil {
			var e interface{ Fatal() bool }
			if errors.As(err, &e) && e.Fatal() || ctx.Err() != nil {
				return err
			}
			c.recoveries++
		}
	}
	return nil
}

// begin recovers and writes until something fails.
func (c *counter) begin(ctx context.Context, until int) error {
	p, err := c.client.NewProducer(ctx, stream.ProducerConfig{TransactionalID: c.id, Timeout: 20 * time.Second})
	if err != nil {
		return err
	}
	if err := p.Settle(ctx, []stream.Partition{{Topic: c.topic, Number: 0}, {Topic: c.topic, Number: 1}}); err != nil {
		return err
	}
	if c.next, err = c.committed(ctx); err != nil {
		return err
	}
	for c.next < until {
		var out []*stream.Outgoing
		for part := range int32(2) {
			b := new(stream.Batch)
			for n := c.next; n < c.next+2; n++ {
				if err := b.Append(1, nil, strconv.AppendInt(nil, int64(n), 10), nil); err != nil {
					return err
				}
			}
			if err := b.Seal(stream.None, true); err != nil {
				return err
			}
			out = append(out, &stream.Outgoing{Topic: c.topic, Partition: part, Batch: b})
		}
		if err := p.Produce(ctx, out); err != nil {
			return err
		}
		if err := p.End(ctx, true); err != nil {
			return err
		}
		c.next += 2
	}
	return nil
}

// committed returns how many numbers are committed, in both partitions.
func (c *counter) committed(ctx context.Context) (int, error) {
	var counts [2]int
	for part := range int32(2) {
		if _, err := c.client.WaitStable(ctx, c.topic, part); err != nil {
			return 0, err
		}
		_, err := c.client.ReadToEnd(ctx, c.topic, part, 0, func(r *stream.Record) error {
			if string(r.Value) != fmt.Sprint(counts[part]) {
				return fmt.Errorf("partition %d has %s where %d should be", part, r.Value, counts[part])
			}
			counts[part]++
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	if counts[0] != counts[1] {
		return 0, fmt.Errorf("a transaction was torn: %v", counts)
	}
	return counts[0], nil
}

// TestKafkaIsStoppedAndKilled writes while the only node is stopped, started,
// killed, started.
func TestKafkaIsStoppedAndKilled(t *testing.T) {
	t.Parallel()
	settings := testenv.QuickRestart()
	settings["transaction.partition.verification.enable"] = "false"
	k := testenv.NewKafka(t, testenv.KafkaOptions{Settings: settings})
	t.Run("hanging", func(t *testing.T) { hangAndSettle(t, k.Addr()) })
	client := newClientOf(t, stream.Config{Brokers: []string{k.Addr()}, Timeout: 20 * time.Second})
	c := &counter{client: client, topic: newTopic(t, client, 2, nil), id: testenv.Unique("counter")}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	progress := func(more int) {
		t.Helper()
		if err := c.run(ctx, c.next+more); err != nil {
			t.Fatal(err)
		}
	}
	progress(100)
	for _, stop := range []func() error{func() error { return k.Stop(ctx) }, k.Kill} {
		var done sync.WaitGroup
		done.Go(func() {
			if err := c.run(ctx, c.next+600); err != nil {
				t.Errorf("write over a restart: %v", err)
			}
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := k.Start(ctx); err != nil {
			t.Fatal(err)
		}
		done.Wait()
	}
	progress(100)
	if n, err := c.committed(ctx); err != nil || n < c.next {
		t.Errorf("%d are committed, %v; %d were written", n, err, c.next)
	}
	t.Logf("%d numbers, %d recoveries", c.next, c.recoveries)
}

// hangAndSettle leaves transactions hanging, as a node does that is killed
// before it has written the markers of one that it calls complete: a partition
// of which the coordinator does not know gets records but no marker.
func hangAndSettle(t *testing.T, addr string) {
	for name, commit := range map[string]bool{"committed": true, "aborted": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hangOnce(t, newClient(t, addr), name, commit)
		})
	}
}

func hangOnce(t *testing.T, c *stream.Client, name string, commit bool) {
	topic := newTopic(t, c, 3, nil)
	id := testenv.Unique(name)
	parts := []stream.Partition{{Topic: topic, Number: 0}, {Topic: topic, Number: 1}, {Topic: topic, Number: 2}}
	p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
	produce(t, p, batchOf(t, topic, 0, true, "a"))
	p.HideFromCoordinator(parts[1])
	p.HideFromCoordinator(parts[2])
	produce(t, p, batchOf(t, topic, 1, true, "b"), batchOf(t, topic, 2, true, "c"))
	end(t, p, commit)
	if o, err := c.Offsets(testContext(t), topic, 1); err != nil || o.LastStable != 0 || o.End != 1 {
		t.Fatalf("%s: the transaction does not hang: %+v, %v", name, o, err)
	}
	soon, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if err := newProducer(t, c, stream.ProducerConfig{TransactionalID: id}).Settle(soon, parts); err == nil {
		t.Fatalf("%s: it is settled at once", name)
	}
	next := newProducer(t, c, stream.ProducerConfig{TransactionalID: id}) // the one before had no time
	if err := next.Settle(testContext(t), parts); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	produce(t, next, batchOf(t, topic, 1, true, "next"))
	end(t, next, true)
	settle(t, c, topic, 1)
	if commit {
		wantValues(t, c, topic, 0, "a")
		wantValues(t, c, topic, 1, "b", "next")
		wantValues(t, c, topic, 2, "c")
	} else {
		wantValues(t, c, topic, 0)
		wantValues(t, c, topic, 1, "next")
		wantValues(t, c, topic, 2)
	}
	// What another producer has open is not ours to end.
	open := newProducer(t, c, stream.ProducerConfig{TransactionalID: testenv.Unique("other")})
	produce(t, open, batchOf(t, topic, 2, true, "open"))
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()
	err := newProducer(t, c, stream.ProducerConfig{TransactionalID: id}).Settle(ctx, parts)
	wantError(t, err, stream.ErrHanging, true, "find-hanging")
	end(t, open, true)
}
