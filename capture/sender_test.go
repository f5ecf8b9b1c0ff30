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
