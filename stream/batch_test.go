package stream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

var allCodecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

// sample is a record in a form that owns its bytes.
type sample struct {
	ts         int64
	key, value []byte
	headers    []RecordHeader
}

// sampleAt makes the records that testdata/java/MakeBatches.java makes.
func sampleAt(i int) sample {
	s := sample{ts: 1_700_000_000_000 + int64(i)*3}
	if i%10 == 2 {
		s.ts -= 500
	}
	switch i % 5 {
	case 0:
	case 1:
		s.key = []byte{}
	default:
		s.key = fmt.Appendf(nil, "key-%d", i)
	}
	if i%7 != 3 {
		n := i % 41
		if i%7 == 4 {
			n = 0
		}
		s.value = []byte(strings.Repeat(fmt.Sprintf("value %d;", i*7919%1000), n))
	}
	for k := range i % 3 {
		h := RecordHeader{Key: fmt.Sprintf("h%d", k)}
		if i%4 != 0 {
			h.Value = fmt.Appendf(nil, "v%d", i)
		}
		s.headers = append(s.headers, h)
	}
	return s
}

func appendSamples(t testing.TB, b *Batch, n int) {
	t.Helper()
	for i := range n {
		s := sampleAt(i)
		if err := b.Append(s.ts, s.key, s.value, s.headers); err != nil {
			t.Fatal(err)
		}
	}
}

// sealed returns a batch of n samples, as it goes over the wire.
func sealed(t testing.TB, n int, codec Codec, transactional bool) []byte {
	t.Helper()
	var b Batch
	appendSamples(t, &b, n)
	if err := b.Seal(codec, transactional); err != nil {
		t.Fatal(err)
	}
	return b.Stamp(7, 3, 11)
}

// sameBytes also tells null from empty.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestBatchGolden(t *testing.T) {
	var b Batch
	mustAppend(t, &b, 1_700_000_000_000, []byte("k"), []byte("value"), []RecordHeader{{"h", []byte("x")}, {"nil", nil}})
	mustAppend(t, &b, 1_700_000_000_005, nil, []byte{}, nil)
	mustAppend(t, &b, 1_699_999_999_000, []byte{}, nil, nil)
	if err := b.Seal(None, true); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"0000000000000000" + // base offset 0
		"00000056" + // length: 98 bytes less 12
		"ffffffff" + // partition leader epoch -1
		"02" + // magic
		"c1c2c3c4" + // checksum, compared below
		"0010" + // attributes: transactional
		"00000002" + // last offset delta
		"0000018bcfe56800" + // base timestamp
		"0000018bcfe56805" + // max timestamp
		"0000000000001234" + "0005" + "00000006" + // producer id, epoch, base sequence
		"00000003" + // records
		// length 21, attributes, ts +0, offset +0, key, value, 2 headers
		"2a" + "00" + "00" + "00" + "026b" + "0a76616c7565" + "04" + "0268" + "0278" + "066e696c" + "01" +
		// length 6, attributes, ts +5, offset +1, null key, empty value, no header
		"0c" + "00" + "0a" + "02" + "01" + "00" + "00" +
		// length 7, attributes, ts -1000, offset +2, empty key, null value, no header
		"0e" + "00" + "cf0f" + "04" + "00" + "01" + "00"
	got := bytes.Clone(b.Stamp(0x1234, 5, 6))
	sum := fmt.Sprintf("%08x", crc32.Checksum(got[21:], crc32.MakeTable(crc32.Castagnoli)))
	want = strings.Replace(want, "c1c2c3c4", sum, 1)
	if hex.EncodeToString(got) != want {
		t.Fatalf("batch bytes\n got %x\nwant %s", got, want)
	}
	// What Apache Kafka's own DefaultRecordBatch.checksum gives for them.
	if sum != "a3ba9637" {
		t.Errorf("checksum %s", sum)
	}
	if first, highest := b.Timestamps(); first != 1_700_000_000_000 || highest != 1_700_000_000_005 {
		t.Errorf("timestamps %d, %d", first, highest)
	}
	if b.Len() != 3 || b.Size() != 98 || b.WireSize() != 98 {
		t.Errorf("Len %d, Size %d, WireSize %d", b.Len(), b.Size(), b.WireSize())
	}
}

func mustAppend(t *testing.T, b *Batch, ts int64, key, value []byte, headers []RecordHeader) {
	t.Helper()
	if err := b.Append(ts, key, value, headers); err != nil {
		t.Fatal(err)
	}
}

// kafkaGoRecords reads a record set with kafka-go's reader, which shares no
// code with ours but the codecs' libraries.
func kafkaGoRecords(t *testing.T, set []byte) ([]sample, protocol.Attributes) {
	t.Helper()
	var rs protocol.RecordSet
	framed := append([]byte{byte(len(set) >> 24), byte(len(set) >> 16), byte(len(set) >> 8), byte(len(set))}, set...)
	if _, err := rs.ReadFrom(bytes.NewReader(framed)); err != nil {
		t.Fatalf("kafka-go reads the batch: %v", err)
	}
	var out []sample
	for {
		r, err := rs.Records.ReadRecord()
		if err != nil {
			break
		}
		s := sample{ts: r.Time.UnixMilli(), key: readAll(t, r.Key), value: readAll(t, r.Value)}
		for _, h := range r.Headers {
			s.headers = append(s.headers, RecordHeader(h))
		}
		if r.Offset != int64(len(out)) {
			t.Fatalf("record %d has offset %d", len(out), r.Offset)
		}
		out = append(out, s)
	}
	return out, rs.Attributes
}

func readAll(t *testing.T, b protocol.Bytes) []byte {
	t.Helper()
	p, err := protocol.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// same says whether two records are equal but for null and empty, which
// kafka-go does not tell apart in all places.
func (s sample) same(o sample) bool {
	if s.ts != o.ts || !bytes.Equal(s.key, o.key) || !bytes.Equal(s.value, o.value) || len(s.headers) != len(o.headers) {
		return false
	}
	for i := range s.headers {
		if s.headers[i].Key != o.headers[i].Key || !bytes.Equal(s.headers[i].Value, o.headers[i].Value) {
			return false
		}
	}
	return true
}

func TestBatchReadByKafkaGo(t *testing.T) {
	for _, codec := range allCodecs {
		for _, n := range []int{1, 2, 400, 9000} { // 9000: 1.3 MB, several blocks of each codec
			t.Run(fmt.Sprintf("%v/%d", codec, n), func(t *testing.T) {
				set := sealed(t, n, codec, true)
				got, attributes := kafkaGoRecords(t, set)
				if n > 2 && attributes.Compression() != protocol.Attributes(codec).Compression() || !attributes.Transactional() {
					t.Errorf("attributes %v", attributes)
				}
				if len(got) != n {
					t.Fatalf("kafka-go reads %d of %d records", len(got), n)
				}
				for i := range got {
					if !got[i].same(sampleAt(i)) {
						t.Fatalf("record %d: kafka-go reads %+v", i, got[i])
					}
				}
			})
		}
	}
}

func TestStampAgain(t *testing.T) {
	var b Batch
	appendSamples(t, &b, 100)
	if b.Stamp(1, 1, 1) != nil {
		t.Error("a batch that is not sealed has bytes")
	}
	if err := b.Seal(Zstd, true); err != nil {
		t.Fatal(err)
	}
	first := bytes.Clone(b.Stamp(7, 3, 11))
	second := bytes.Clone(b.Stamp(1<<40, -2, 1<<31-1))
	if !bytes.Equal(first[headerSize:], second[headerSize:]) {
		t.Error("stamping changed the records")
	}
	if !bytes.Equal(first, b.Stamp(7, 3, 11)) {
		t.Error("the same stamp gives other bytes")
	}
	var d Decoder
	d.Reset(second)
	if !d.NextBatch() {
		t.Fatal(d.Err())
	}
	if i := d.Batch(); i.ProducerID != 1<<40 || i.ProducerEpoch != -2 || i.BaseSequence != 1<<31-1 {
		t.Errorf("stamp reads back as %+v", i)
	}
}

func TestBatchIsReusable(t *testing.T) {
	var b Batch
	for round := range 3 {
		for _, codec := range allCodecs {
			b.Reset()
			n := 1 + 100*((round+1)%3)
			appendSamples(t, &b, n)
			if err := b.Seal(codec, round == 1); err != nil {
				t.Fatal(err)
			}
			if want := sealed(t, n, codec, round == 1); !bytes.Equal(b.Stamp(7, 3, 11), want) {
				t.Fatalf("round %d, %v: a reused batch differs from a new one", round, codec)
			}
		}
	}
}

func TestParseCodec(t *testing.T) {
	for _, c := range allCodecs {
		if got, err := ParseCodec(c.String()); err != nil || got != c {
			t.Errorf("%v parses as %v, %v", c, got, err)
		}
	}
	for _, name := range []string{"", "LZ4", "brotli", "codec(5)"} {
		if _, err := ParseCodec(name); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s := Codec(-1).String() + Codec(5).String(); s != "codec(-1)codec(5)" {
		t.Errorf("unknown codecs are called %s", s)
	}
}

func TestBatchRefuses(t *testing.T) {
	var b Batch
	if err := b.Seal(None, false); !errors.Is(err, errEmpty) {
		t.Errorf("seal an empty batch: %v", err)
	}
	mustAppend(t, &b, 1, nil, []byte("x"), nil)
	for _, codec := range []Codec{-1, 5, 127} {
		if err := b.Seal(codec, false); !errors.Is(err, ErrUnknownCodec) {
			t.Errorf("seal with %v: %v", codec, err)
		}
	}
	if err := b.Seal(None, false); err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(None, false); !errors.Is(err, errSealed) {
		t.Errorf("seal twice: %v", err)
	}
	if err := b.Append(1, nil, nil, nil); !errors.Is(err, errSealed) || b.Len() != 1 {
		t.Errorf("append to a sealed batch: %v, %d records", err, b.Len())
	}
}

func TestBatchStaysBelow2GiB(t *testing.T) {
	// The headers share one value, so that the record is huge and the test not.
	huge := make([]RecordHeader, 2048)
	value := make([]byte, 1<<20)
	for i := range huge {
		huge[i] = RecordHeader{Key: "h", Value: value}
	}
	var b Batch
	if err := b.Append(1, nil, nil, huge); !errors.Is(err, ErrBatchFull) || b.Len() != 0 || b.Size() != 0 {
		t.Fatalf("2 GiB into an empty batch: %v, %d records, %d bytes", err, b.Len(), b.Size())
	}
	mustAppend(t, &b, 1, []byte("k"), nil, nil)
	size := b.Size()
	if err := b.Append(1, nil, nil, huge); !errors.Is(err, ErrBatchFull) || b.Len() != 1 || b.Size() != size {
		t.Fatalf("2 GiB into a batch: %v, %d records, %d bytes", err, b.Len(), b.Size())
	}
	mustAppend(t, &b, 2, []byte("l"), nil, nil)
	if err := b.Seal(None, false); err != nil {
		t.Fatal(err)
	}
	got, _ := kafkaGoRecords(t, b.Stamp(-1, -1, -1))
	if len(got) != 2 || string(got[0].key) != "k" || string(got[1].key) != "l" {
		t.Errorf("after a refusal the batch holds %+v", got)
	}
}

func TestIncompressibleStaysAsItIs(t *testing.T) {
	noise := make([]byte, 300<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, codec := range allCodecs {
		var b Batch
		mustAppend(t, &b, 1, nil, noise, nil)
		if err := b.Seal(codec, true); err != nil {
			t.Fatal(err)
		}
		got, attributes := kafkaGoRecords(t, b.Stamp(1, 1, 1))
		if attributes != protocol.Transactional || b.WireSize() != b.Size() {
			t.Errorf("%v: attributes %v, %d bytes of %d", codec, attributes, b.WireSize(), b.Size())
		}
		if len(got) != 1 || !bytes.Equal(got[0].value, noise) {
			t.Errorf("%v: the value changed", codec)
		}
	}
}

func TestPartlyCompressible(t *testing.T) {
	mixed := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 300 << 10 {
		mixed[200<<10+i] = byte(rng.Uint32())
	}
	for _, codec := range allCodecs {
		var b Batch
		mustAppend(t, &b, 1, nil, mixed, nil)
		if err := b.Seal(codec, true); err != nil {
			t.Fatal(err)
		}
		got, attributes := kafkaGoRecords(t, b.Stamp(1, 1, 1))
		if len(got) != 1 || !bytes.Equal(got[0].value, mixed) || Codec(attributes.Compression()) != codec {
			t.Errorf("%v: kafka-go reads something else", codec)
		}
	}
}

func TestBatchLetsGoOfHugeBuffers(t *testing.T) {
	var b Batch
	mustAppend(t, &b, 1, nil, make([]byte, 16<<20), nil)
	b.Reset()
	if cap(b.buf) < 16<<20 {
		t.Error("the buffer of the last use is not kept")
	}
	mustAppend(t, &b, 1, nil, []byte("small"), nil)
	b.Reset()
	if cap(b.buf) != 0 {
		t.Errorf("%d bytes are kept after a small batch", cap(b.buf))
	}
}

func TestMaxRecordOverhead(t *testing.T) {
	var b Batch
	mustAppend(t, &b, 1<<62, nil, nil, nil)
	for b.Len() < 70_000 { // three bytes of offset delta
		mustAppend(t, &b, -1<<62, nil, nil, nil)
	}
	key, value := make([]byte, 1<<20), make([]byte, 1<<21)
	before := b.Size()
	mustAppend(t, &b, -1<<62, key, value, nil)
	if over := b.Size() - before - len(key) - len(value); over > MaxRecordOverhead {
		t.Errorf("a record takes %d bytes over its key and value", over)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	key, value := make([]byte, 20), make([]byte, 200)
	headers := []RecordHeader{{MarkKey, make([]byte, 20)}}
	var b Batch
	fill := func() {
		b.Reset()
		for range 1000 {
			if err := b.Append(1, key, value, headers); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	if n := testing.AllocsPerRun(10, fill); n != 0 {
		t.Errorf("%v allocations per 1000 records", n)
	}
}

func TestSealAllocatesNothing(t *testing.T) {
	for _, codec := range allCodecs {
		var b Batch
		var err error
		seal := func() {
			b.wire = nil
			if err = errors.Join(err, b.Seal(codec, true)); b.Stamp(1, 2, 3) == nil {
				t.Fatal("not sealed")
			}
		}
		appendSamples(t, &b, 3000)
		seal()
		if n := testing.AllocsPerRun(10, seal); n > poolAllocs || err != nil {
			t.Errorf("%v: %v allocations per batch, %v", codec, n, err)
		}
	}
}

// benchValue is about what a row of an order is in Avro: numbers, short texts,
// and a document.
func benchValue(rng *rand.Rand, size int) []byte {
	v := fmt.Appendf(nil, "%d|customer-%d@example.com|%d.%02d|%s|", rng.Uint64(), rng.IntN(100_000), rng.IntN(9999), rng.IntN(100),
		time.UnixMilli(1_700_000_000_000+rng.Int64N(1e10)).Format(time.RFC3339Nano))
	for len(v) < size {
		v = fmt.Appendf(v, `{"sku":"A-%06d","quantity":%d,"status":"shipped"},`, rng.IntN(1e6), rng.IntN(20))
	}
	return v[:size]
}

func benchBatch(b *testing.B, size, valueSize int) *Batch {
	rng := rand.New(rand.NewPCG(3, 4))
	var batch Batch
	for i := 0; batch.Size() < size; i++ {
		mark := AppendMark(nil, Mark{Place: Place{Epoch: 1, Pos: 0x1_0000_0000 + uint64(i)*300, Row: 1}, N: uint64(i)})
		if err := batch.Append(1_700_000_000_000+int64(i/10), fmt.Appendf(nil, "key%08d", i), benchValue(rng, valueSize), []RecordHeader{{MarkKey, mark}}); err != nil {
			b.Fatal(err)
		}
	}
	return &batch
}

func BenchmarkAppend(b *testing.B) {
	mark := AppendMark(nil, Mark{Place: Place{Epoch: 1, Pos: 0x1_0000_0000, Row: 1}, N: 12345})
	for _, c := range []struct {
		name    string
		size    int
		headers []RecordHeader
	}{{"200", 200, nil}, {"200+mark", 200, []RecordHeader{{MarkKey, mark}}}, {"449+mark", 449, []RecordHeader{{MarkKey, mark}}}} {
		b.Run(c.name, func(b *testing.B) {
			key, value := make([]byte, 10), make([]byte, c.size-10)
			var batch Batch
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			for i := 0; b.Loop(); i++ {
				if batch.Size() > 1<<20 {
					batch.Reset()
				}
				if err := batch.Append(1_700_000_000_000+int64(i), key, value, c.headers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	batch := benchBatch(b, 1<<20, 449)
	for _, codec := range allCodecs {
		b.Run(codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(batch.Size()))
			for b.Loop() {
				batch.wire = nil
				if err := batch.Seal(codec, true); err != nil {
					b.Fatal(err)
				}
				batch.Stamp(1, 2, 3)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Len()), "ns/record")
			b.ReportMetric(float64(batch.Size())/float64(batch.WireSize()), "ratio")
		})
	}
}
