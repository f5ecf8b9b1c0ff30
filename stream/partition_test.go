package stream

import (
	"fmt"
	"testing"

	"github.com/segmentio/kafka-go"
)

// The hashes that org.apache.kafka.common.utils.Utils.murmur2 returns; the
// first six are in Kafka's own tests.
func TestMurmur2(t *testing.T) {
	for in, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(in))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", in, got, want)
		}
	}
	// Bytes above 127 are signed in Java: lengths 0 to 20 of such a text.
	lengths := []int32{275646681, 425050138, -1606385903, -108754803, 1386831423, 580644288, -1879261483, -532381679, 1482585343, 210905472,
		1170719500, 387960439, -424466987, -1260287053, -326867563, -27470952, -1323797251, 1979245164, -421224522, 1381377166, 450443725}
	var in []byte
	for n, want := range lengths {
		if got := int32(murmur2(in)); got != want {
			t.Errorf("murmur2(%x) = %d, want %d", in, got, want)
		}
		in = append(in, byte(n*37+200))
	}
}

func TestPartitionOf(t *testing.T) {
	for in, want := range map[string]int32{"21": 0, "foobar": 6, "a-little-bit-long-string": 8, "a-little-bit-longer-string": 11, "abc": 3} {
		if got := PartitionOf([]byte(in), 12); got != want {
			t.Errorf("PartitionOf(%q, 12) = %d, want %d", in, got, want)
		}
	}
	for _, n := range []int32{-1, 0, 1} {
		if got := PartitionOf([]byte("foobar"), n); got != 0 {
			t.Errorf("of %d partitions it takes %d", n, got)
		}
	}
}

func TestPartitionOfAgreesWithKafkaGo(t *testing.T) {
	for _, partitions := range []int{2, 3, 7, 64, 1000} {
		all := make([]int, partitions)
		for i := range all {
			all[i] = i
		}
		for i := range 1000 {
			key := fmt.Appendf(nil, "\x00\xff%d", i*7919)
			want := kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, all...)
			if got := PartitionOf(key, int32(partitions)); int(got) != want {
				t.Fatalf("key %q of %d partitions: %d, kafka-go says %d", key, partitions, got, want)
			}
		}
	}
}

func BenchmarkPartitionOf(b *testing.B) {
	key := []byte("a key of 20 bytes...")
	b.ReportAllocs()
	for b.Loop() {
		PartitionOf(key, 12)
	}
}
