package capture

import (
	"testing"

	"github.com/tailrace/tailrace/stream"
)

// One transaction may touch many thousand partitions: its state is one batch, and the
// broker takes it, compressed or not.
func TestStateOfManyPartitions(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		for _, codec := range []stream.Codec{stream.None, stream.LZ4} {
			cfg := c.config(newFakeLog(), transactional)
			cfg.Codec = codec
			if err := makeStateTopic(t.Context(), &cfg); err != nil {
				t.Fatal(err)
			}
			prod, err := own(t.Context(), &cfg)
			if err != nil {
				t.Fatal(err)
			}
			s := newSender(&cfg, prod, Position{}, func(Position) {})
			prog := newProgress(emptyState(), start{from: positionState{G: 1, Epoch: 1}}, nil)
			const many = 10_000
			for i := range int32(many) {
				place := stream.Place{Epoch: 1, Pos: 1 << 40, Row: uint64(i + 1)}
				if _, _, err := prog.admit(prog.add(PartitionID{"prefix.schema.a_table_with_a_name", i}, tail{offset: -1}), place, nil, 'c'); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.send(t.Context(), &group{cut: prog.cut()}); err != nil {
				t.Fatalf("codec %v: %v", codec, err)
			}
			if n := len(loadTestState(t, c, &cfg).partitions); n != many {
				t.Errorf("the state has %d partitions", n)
			}
		}
	})
}

// A stop in the middle of a large transaction leaves no Kafka transaction open: readers of
// the topics would wait for its timeout.
func TestStopAbortsWhatIsOpen(t *testing.T) {
	c := newCluster(t)
	p, r := idlePipeline(t)
	for name := range p.routes.topics {
		if _, err := c.client.EnsureTopic(t.Context(), stream.TopicSpec{Name: name, Partitions: 1, Create: true}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if p.send.prod, err = c.client.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(&Tx{Pos: 100, ID: "1"}); err != nil {
		t.Fatal(err)
	}
	large := Change{Route: r, Op: 'c', Key: make([]byte, frameSize+1), Value: make([]byte, flushBytes/8)}
	for p.unended == 0 {
		if err := p.Change(t.Context(), &large); err != nil {
			t.Fatal(err)
		}
	}
	p.finish(t.Context())
	close(p.send.queue)
	if err := p.send.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, err := c.client.Offsets(t.Context(), r.Topic, 0)
	if err != nil || at.End == 0 || at.LastStable < at.End {
		t.Errorf("stable up to %d of %d: %v", at.LastStable, at.End, err)
	}
}
