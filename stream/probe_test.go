package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// probed are the steps that were tried, with ! before those that failed.
func probed(results []stream.ProbeResult) string {
	var out []string
	for _, r := range results {
		name := string(r.Step)
		if r.Err != nil {
			name = "!" + name
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func scratch(t *testing.T, transactional bool) stream.ProbeConfig {
	return stream.ProbeConfig{Topic: stream.TopicSpec{Name: testenv.Unique("probe"), Partitions: 1, Replication: 1}, Transactional: transactional}
}

// wantNoTopic checks that nothing is left of a probe.
func wantNoTopic(t *testing.T, c *stream.Client, topic string) {
	t.Helper()
	if _, err := c.Topic(testContext(t), topic); !errors.Is(err, stream.ErrNoTopic) {
		t.Errorf("topic %s is left: %v", topic, err)
	}
}

const allSteps = "connect create producer produce commit read delete"

func TestProbe(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		for _, transactional := range []bool{false, true} {
			cfg := scratch(t, transactional)
			want := allSteps
			if transactional && b.name == "embedded" { // which refuses them
				want = "connect create !producer delete"
			}
			results := c.Probe(testContext(t), cfg)
			if got := probed(results); got != want {
				t.Errorf("transactional %v: steps are %s, want %s: %v", transactional, got, want, results)
			}
			wantNoTopic(t, c, cfg.Topic.Name)
		}
	})
}

// Whatever step fails or is interrupted, the topic is deleted.
func TestProbeFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		key  kmsg.Key
		code int16 // 0: the context ends when the request comes
		want string
	}{
		{"create refused", kmsg.CreateTopics, 44, "connect !create"},
		{"no producer", kmsg.InitProducerID, 53, "connect create !producer delete"},
		{"not joined", kmsg.AddPartitionsToTxn, 29, "connect create producer !produce delete"},
		{"not written", kmsg.Produce, 29, "connect create producer !produce delete"},
		{"not committed", kmsg.EndTxn, 53, "connect create producer produce !commit delete"},
		{"not read", kmsg.Fetch, 29, "connect create producer produce commit !read delete"},
		{"not deleted", kmsg.DeleteTopics, 29, "connect create producer produce commit read !delete"},
		{"interrupted at create", kmsg.CreateTopics, 0, "connect !create delete"},
		{"interrupted at produce", kmsg.Produce, 0, "connect create producer !produce delete"},
		{"interrupted at read", kmsg.Fetch, 0, "connect create producer produce commit !read delete"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster, addr := startCluster(t, kfake.NumBrokers(1))
			client := newClientOf(t, stream.Config{Brokers: []string{addr}, Timeout: 5 * time.Second})
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			fault := kfake.Fault{Keys: []kmsg.Key{c.key}, Count: -1}
			if c.code != 0 {
				fault.Err = kerr.ErrorForCode(c.code).(*kerr.Error)
			} else {
				fault.Observe, fault.When = true, func(kmsg.Request) bool { cancel(); return false }
			}
			cluster.Fault(fault)
			cfg := scratch(t, true)
			if got := probed(client.Probe(ctx, cfg)); got != c.want {
				t.Errorf("steps are %s, want %s", got, c.want)
			}
			if c.key != kmsg.DeleteTopics {
				wantNoTopic(t, client, cfg.Topic.Name)
			}
		})
	}
}

// Nobody there, a wrong password: the first step says so, and nothing else is tried.
func TestProbeUnreachable(t *testing.T) {
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	_, secured := startCluster(t, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "secret"))
	for _, cfg := range []stream.Config{
		{Brokers: []string{fmt.Sprintf("127.0.0.1:%d", port)}},
		{Brokers: []string{secured}, SASL: plain.Mechanism{Username: "admin", Password: "wrong"}},
	} {
		cfg.Timeout = time.Second
		results := newClientOf(t, cfg).Probe(testContext(t), scratch(t, false))
		if got := probed(results); got != "!connect" {
			t.Errorf("%v: steps are %s", cfg.Brokers, got)
		}
	}
}
