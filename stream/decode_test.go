package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/protocol"
)

// readFile gives a batch that Apache Kafka's own code wrote.
func readFile(t testing.TB, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", "java", name+".batch"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// patch changes a batch and makes its length and checksum right again.
func patch(batch []byte, change func(p []byte) []byte) []byte {
	p := change(bytes.Clone(batch))
	binary.BigEndian.PutUint32(p[atLength:], uint32(len(p)-lengthOverhead))
	binary.BigEndian.PutUint32(p[atChecksum:], crc32.Checksum(p[atAttributes:], castagnoli))
	return p
}

// withPayload replaces the records of a batch, as codec would have them.
func withPayload(codec Codec, count int32, payload []byte) []byte {
	head := make([]byte, headerSize)
	head[atMagic] = magic2
	head[atAttributes+1] = byte(codec)
	binary.BigEndian.PutUint32(head[atLastOffsetDelta:], uint32(max(count, 1)-1))
	binary.BigEndian.PutUint32(head[atCount:], uint32(count))
	return patch(append(head, payload...), func(p []byte) []byte { return p })
}

// own copies the decoder's record.
func owned(r *Record) sample {
	return sample{ts: r.Timestamp, key: bytes.Clone(r.Key), value: bytes.Clone(r.Value), headers: r.Headers.AppendTo(nil)}
}

// identical is sample.same that also tells null from empty.
func identical(a, b sample) bool {
	return a.same(b) && sameBytes(a.key, b.key) && sameBytes(a.value, b.value) &&
		slices.EqualFunc(a.headers, b.headers, func(x, y RecordHeader) bool { return sameBytes(x.Value, y.Value) })
}

// walk reads a whole set and returns the records and their offsets.
func walk(d *Decoder, set []byte) (records []sample, offsets []int64, err error) {
	d.Reset(set)
	for d.NextBatch() {
		for d.NextRecord() {
			records, offsets = append(records, owned(d.Record())), append(offsets, d.Record().Offset)
		}
	}
	return records, offsets, d.Err()
}

func checkSamples(t *testing.T, set []byte, n int) {
	t.Helper()
	var d Decoder
	records, offsets, err := walk(&d, set)
	if err != nil || len(records) != n {
		t.Fatalf("%d of %d records, %v", len(records), n, err)
	}
	base := int64(binary.BigEndian.Uint64(set))
	for i, r := range records {
		if !identical(r, sampleAt(i)) || offsets[i] != base+int64(i) {
			t.Fatalf("record %d reads as %+v at offset %d", i, r, offsets[i])
		}
	}
}

func TestDecodeOwnBatches(t *testing.T) {
	for _, codec := range allCodecs {
		for _, n := range []int{1, 400, 9000} {
			t.Run(fmt.Sprintf("%v/%d", codec, n), func(t *testing.T) { checkSamples(t, sealed(t, n, codec, true), n) })
		}
	}
}

func TestDecodeJavaBatches(t *testing.T) {
	for _, codec := range allCodecs {
		t.Run(codec.String(), func(t *testing.T) {
			set := readFile(t, codec.String())
			checkSamples(t, set, 400)
			var d Decoder
			d.Reset(set)
			if !d.NextBatch() {
				t.Fatal(d.Err())
			}
			want := BatchInfo{BaseOffset: 1000, LastOffsetDelta: 399, Count: 400, LeaderEpoch: 5, ProducerID: 7, ProducerEpoch: 3, BaseSequence: 11,
				FirstTimestamp: 1_700_000_000_000, MaxTimestamp: 1_700_000_001_197, Codec: codec, Size: len(set)}
			if *d.Batch() != want || d.Batch().LastOffset() != 1399 || d.Batch().NextOffset() != 1400 {
				t.Errorf("batch reads as %+v", d.Batch())
			}
		})
	}
	checkSamples(t, readFile(t, "transactional"), 400)
}

func TestDecodeLogAppendTime(t *testing.T) {
	var d Decoder
	records, _, err := walk(&d, readFile(t, "logappendtime"))
	if err != nil || len(records) != 400 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, r := range records {
		if r.ts != 1_700_000_099_999 {
			t.Fatalf("record %d has timestamp %d", i, r.ts)
		}
	}
}

func TestDecodeMarkers(t *testing.T) {
	for name, want := range map[string]Control{"commit": ControlCommit, "abort": ControlAbort} {
		var d Decoder
		d.Reset(readFile(t, name))
		if !d.NextBatch() {
			t.Fatal(d.Err())
		}
		if i := d.Batch(); i.Control != want || !i.Transactional || i.ProducerID != 7 || i.NextOffset() != 1001 {
			t.Errorf("%s reads as %+v", name, i)
		}
		if !d.NextRecord() || len(d.Record().Key) != 4 || d.NextRecord() || d.NextBatch() || d.Err() != nil {
			t.Errorf("%s: the marker is not one record: %v", name, d.Err())
		}
	}
	abort := readFile(t, "abort")
	other := patch(abort, func(p []byte) []byte { p[headerSize+8] = 2; return p }) // type 2: leader change
	short := withPayload(None, 1, []byte{7 * 2, 0, 0, 0, 1 * 2, 9, 1, 0})          // a key of one byte
	short = patch(short, func(p []byte) []byte { p[atAttributes+1] |= attrControl; return p })
	empty := patch(abort, func(p []byte) []byte { p = p[:headerSize]; p[atCount+3] = 0; return p })
	for name, set := range map[string][]byte{"unknown type": other, "short key": short, "marker removed": empty} {
		var d Decoder
		d.Reset(set)
		if !d.NextBatch() || d.Batch().Control != ControlUnknown {
			t.Errorf("%s: control %d, %v", name, d.Batch().Control, d.Err())
		}
	}
	broken := patch(abort, func(p []byte) []byte { return p[:len(p)-1] })
	var d Decoder
	if d.Reset(broken); d.NextBatch() || !errors.Is(d.Err(), ErrMalformed) {
		t.Errorf("a broken marker gives %v", d.Err())
	}
}

func TestDecodeKafkaGoBatches(t *testing.T) {
	for _, codec := range allCodecs {
		var records []protocol.Record
		for i := range 500 {
			s := sampleAt(i)
			r := protocol.Record{Time: time.UnixMilli(s.ts), Key: newBytes(s.key), Value: newBytes(s.value)}
			for _, h := range s.headers {
				r.Headers = append(r.Headers, protocol.Header(h))
			}
			records = append(records, r)
		}
		rs := protocol.RecordSet{Version: 2, Attributes: protocol.Attributes(codec), Records: protocol.NewRecordReader(records...)}
		var framed bytes.Buffer
		if _, err := rs.WriteTo(&framed); err != nil {
			t.Fatal(err)
		}
		var d Decoder
		got, _, err := walk(&d, framed.Bytes()[4:])
		if err != nil || len(got) != 500 || d.Batch().Codec != codec {
			t.Fatalf("%v: %d records, %v", codec, len(got), err)
		}
		for i := range got {
			if !got[i].same(sampleAt(i)) {
				t.Fatalf("%v: record %d reads as %+v", codec, i, got[i])
			}
		}
	}
}

// Framings that other producers write and Apache Kafka accepts.
func TestDecodeOtherFramings(t *testing.T) {
	plain := sealed(t, 2000, None, false)[headerSize:]
	half := len(plain) / 2
	snappyFrame := func(p []byte) []byte { return snappyCompress(nil, p) }
	gz := func(p []byte) []byte { return must(gzipCompress(nil, p)) }
	for name, c := range map[string]struct {
		codec   Codec
		payload []byte
	}{
		"snappy bare":          {Snappy, s2.EncodeSnappy(nil, plain)},
		"snappy two streams":   {Snappy, append(snappyFrame(plain[:half]), snappyFrame(plain[half:])...)},
		"gzip two members":     {Gzip, append(gz(plain[:half]), gz(plain[half:])...)},
		"zstd no content size": {Zstd, zstdStream(t, plain)},
		"zstd two frames":      {Zstd, append(zstdStream(t, plain[:half]), must(zstdCompress(nil, plain[half:]))...)},
		"lz4 4 MiB, checksums": {LZ4, lz4Stream(t, plain, lz4.BlockSizeOption(lz4.Block4Mb), lz4.ChecksumOption(true), lz4.BlockChecksumOption(true))},
		"lz4 content size":     {LZ4, lz4Stream(t, plain, lz4.BlockSizeOption(lz4.Block64Kb), lz4.SizeOption(uint64(len(plain))))},
	} {
		t.Run(name, func(t *testing.T) {
			set := sealed(t, 2000, None, false)
			set = patch(set, func(p []byte) []byte {
				p[atAttributes+1] = byte(c.codec)
				return append(p[:headerSize], c.payload...)
			})
			checkSamples(t, set, 2000)
		})
	}
}

func must(p []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return p
}

func zstdStream(t *testing.T, p []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	for chunk := range slices.Chunk(p, 1000) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func lz4Stream(t *testing.T, p []byte, options ...lz4.Option) []byte {
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDecodeTruncatedSet(t *testing.T) {
	first, second := sealed(t, 5, None, false), sealed(t, 7, LZ4, false)
	set := slices.Concat(first, second)
	for cut := range len(set) + 1 {
		var d Decoder
		records, _, err := walk(&d, set[:cut])
		want, whole := 0, cut == 0
		if cut >= len(first) {
			want, whole = 5, cut == len(first)
		}
		if cut == len(set) {
			want, whole = 12, true
		}
		if err != nil || len(records) != want || d.Truncated() == whole {
			t.Fatalf("cut at %d of %d: %d records, truncated %v, %v", cut, len(set), len(records), d.Truncated(), err)
		}
	}
}

// Every damaged byte that the checksum covers, and the format byte, must end
// the walk with an error after the batch before it; the length may also look
// like a cut-off batch, which gives no record either.
func TestDecodeNeverPassesDamage(t *testing.T) {
	first, second, third := sealed(t, 5, None, false), sealed(t, 7, None, false), sealed(t, 3, None, false)
	for at := atLength; at < len(second); at++ {
		if at >= atLeaderEpoch && at < atMagic {
			continue // brokers write it; not covered by the checksum
		}
		for bit := range 8 {
			damaged := bytes.Clone(second)
			damaged[at] ^= 1 << bit
			var d Decoder
			records, _, err := walk(&d, slices.Concat(first, damaged, third))
			want := ErrChecksum
			if at == atMagic {
				want = ErrUnknownMagic
			}
			known := errors.Is(err, want) || at < atLeaderEpoch && (errors.Is(err, ErrMalformed) || err == nil && d.Truncated())
			if !known || len(records) != 5 {
				t.Fatalf("bit %d of byte %d: %d records, %v", bit, at, len(records), err)
			}
			if d.NextBatch() || d.NextRecord() {
				t.Fatal("the walk goes on after an error")
			}
		}
	}
}

func TestDecodeErrorTellsWhere(t *testing.T) {
	set := sealed(t, 3, None, false)
	binary.BigEndian.PutUint64(set, 4711)
	set[len(set)-1]++
	var d Decoder
	_, _, err := walk(&d, set)
	var de *DecodeError
	if !errors.As(err, &de) || de.Offset != 4711 || !de.Fatal() || de.Hint() == "" || !strings.Contains(err.Error(), "4711") {
		t.Fatalf("error %v", err)
	}
	for _, cause := range []error{ErrTooLarge, ErrUnknownMagic, ErrUnknownCodec} {
		if (&DecodeError{Err: fmt.Errorf("x: %w", cause)}).Hint() == de.Hint() {
			t.Errorf("no hint of its own for %v", cause)
		}
	}
}

func TestDecodeUnknownFormats(t *testing.T) {
	for _, magic := range []byte{0, 1, 3, 255} {
		for _, size := range []int{17, 30, headerSize, 100} {
			set := make([]byte, size)
			set[atMagic] = magic
			var d Decoder
			if d.Reset(set); d.NextBatch() || !errors.Is(d.Err(), ErrUnknownMagic) {
				t.Errorf("magic %d, %d bytes: %v", magic, size, d.Err())
			}
		}
	}
	for _, codec := range []byte{5, 6, 7} {
		set := patch(sealed(t, 3, None, false), func(p []byte) []byte { p[atAttributes+1] = codec; return p })
		var d Decoder
		if d.Reset(set); d.NextBatch() || !errors.Is(d.Err(), ErrUnknownCodec) {
			t.Errorf("codec %d: %v", codec, d.Err())
		}
	}
}

// record writes a record's body behind its length.
func record(body ...byte) []byte { return append([]byte{byte(len(body) * 2)}, body...) }

func TestDecodeMalformed(t *testing.T) {
	good := record(0, 0, 0, 1, 1, 0)
	for name, set := range map[string][]byte{
		"no record but one counted":   withPayload(None, 1, nil),
		"record length too long":      withPayload(None, 1, []byte{12, 0, 0, 0, 1, 1}),
		"record length negative":      withPayload(None, 1, []byte{1, 0, 0, 0, 1, 1, 0}),
		"record length endless":       withPayload(None, 1, bytes.Repeat([]byte{0x80}, 12)),
		"record empty":                withPayload(None, 1, record()),
		"timestamp delta cut off":     withPayload(None, 1, record(0, 0x80)),
		"offset delta negative":       withPayload(None, 1, record(0, 0, 1, 1, 1, 0)),
		"offset delta past the last":  withPayload(None, 1, record(0, 0, 2, 1, 1, 0)),
		"offset delta repeated":       withPayload(None, 2, slices.Concat(good, good)),
		"key length -2":               withPayload(None, 1, record(0, 0, 0, 3, 1, 0)),
		"key longer than the record":  withPayload(None, 1, record(0, 0, 0, 20, 1, 0)),
		"value longer than the rest":  withPayload(None, 1, record(0, 0, 0, 1, 4, 0)),
		"header count missing":        withPayload(None, 1, record(0, 0, 0, 1, 1)),
		"header count negative":       withPayload(None, 1, record(0, 0, 0, 1, 1, 1)),
		"header count absurd":         withPayload(None, 1, record(0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f)),
		"header key null":             withPayload(None, 1, record(0, 0, 0, 1, 1, 2, 1, 1)),
		"header value cut off":        withPayload(None, 1, record(0, 0, 0, 1, 1, 2, 2, 'k')),
		"bytes after the headers":     withPayload(None, 1, record(0, 0, 0, 1, 1, 0, 0)),
		"bytes after the last record": withPayload(None, 1, append(slices.Clone(good), 0)),
		"bytes in an empty batch":     withPayload(None, 0, []byte{0}),
		"count negative":              withPayload(None, -1, good),
		"last offset delta negative":  patch(withPayload(None, 1, good), func(p []byte) []byte { p[atLastOffsetDelta] = 0x80; return p }),
		"base offset negative":        patch(withPayload(None, 1, good), func(p []byte) []byte { p[0] = 0x80; return p }),
		"last offset overflows": patch(withPayload(None, 1, good), func(p []byte) []byte {
			binary.BigEndian.PutUint64(p, math.MaxInt64)
			return p
		}),
		"length below the header": func() []byte {
			p := withPayload(None, 1, good)
			binary.BigEndian.PutUint32(p[atLength:], headerSize-lengthOverhead-1)
			return p
		}(),
		"length negative": func() []byte {
			p := withPayload(None, 1, good)
			binary.BigEndian.PutUint32(p[atLength:], math.MaxUint32)
			return p
		}(),
		"gzip garbage":            withPayload(Gzip, 1, []byte("garbage garbage garbage")),
		"gzip cut off":            withPayload(Gzip, 1, must(gzipCompress(nil, good))[:20]),
		"snappy garbage":          withPayload(Snappy, 1, []byte("garbage garbage garbage")),
		"snappy nothing":          withPayload(Snappy, 1, nil),
		"snappy header cut off":   withPayload(Snappy, 1, []byte(xerialHeader[:12])),
		"snappy size cut off":     withPayload(Snappy, 1, []byte(xerialHeader+"\x00\x00")),
		"snappy block a byte off": withPayload(Snappy, 1, []byte(xerialHeader+"\x00\x00\x00\x04abc")),
		"snappy block cut off":    withPayload(Snappy, 1, []byte(xerialHeader+"\x00\x00\x00\x09abc")),
		"lz4 garbage":             withPayload(LZ4, 1, []byte("garbage garbage garbage")),
		"lz4 cut off":             withPayload(LZ4, 1, lz4Compress(nil, good)[:12]),
		"zstd garbage":            withPayload(Zstd, 1, []byte("garbage garbage garbage")),
		"zstd cut off":            withPayload(Zstd, 1, must(zstdCompress(nil, good))[:8]),
		"compressed, but nothing": withPayload(Zstd, 1, nil),
	} {
		var d Decoder
		records, _, err := walk(&d, set)
		if !errors.Is(err, ErrMalformed) || len(records) > 1 {
			t.Errorf("%s: %d records, %v", name, len(records), err)
		}
		// A decoder and its codecs are good again afterwards.
		if records, _, err = walk(&d, sealed(t, 50, d.Batch().Codec, false)); err != nil || len(records) != 50 {
			t.Errorf("%s: afterwards %d records, %v", name, len(records), err)
		}
	}
}

func TestDecodeStopsAtTheFirstBadRecord(t *testing.T) {
	good, bad := record(0, 0, 2, 1, 1, 0), record(0, 0, 0, 3, 1, 0)
	var d Decoder
	d.Reset(slices.Concat(withPayload(None, 2, slices.Concat(bad, good)), sealed(t, 3, None, false)))
	if !d.NextBatch() || d.NextRecord() || d.Err() == nil {
		t.Fatalf("the bad record gives %v", d.Err())
	}
	if d.NextRecord() || d.NextBatch() {
		t.Error("the walk goes on after the bad record")
	}
}

// Compaction takes records out and leaves the offsets that the batch covers.
func TestDecodeCompacted(t *testing.T) {
	gaps := slices.Concat(record(0, 0, 4, 1, 1, 0), record(0, 0, 10, 1, 1, 0)) // offset deltas 2 and 5
	set := patch(withPayload(None, 2, gaps), func(p []byte) []byte {
		binary.BigEndian.PutUint64(p, 100)
		p[atLastOffsetDelta+3] = 9
		return p
	})
	empty := patch(withPayload(None, 0, nil), func(p []byte) []byte {
		binary.BigEndian.PutUint64(p, 110)
		p[atLastOffsetDelta+3] = 4
		return p
	})
	emptyGzip := patch(empty, func(p []byte) []byte { p[7] = 115; p[atAttributes+1] = byte(Gzip); return p })
	var d Decoder
	_, offsets, err := walk(&d, slices.Concat(set, empty, emptyGzip))
	if err != nil || !slices.Equal(offsets, []int64{102, 105}) {
		t.Fatalf("offsets %v, %v", offsets, err)
	}
	d.Reset(slices.Concat(set, empty, emptyGzip))
	var next []int64
	for d.NextBatch() {
		next = append(next, d.Batch().NextOffset())
	}
	if !slices.Equal(next, []int64{110, 115, 120}) || d.Err() != nil {
		t.Errorf("next offsets %v, %v", next, d.Err())
	}
}

func TestDecodeSkippedBatchIsNotInflated(t *testing.T) {
	garbage := withPayload(Gzip, 1, []byte("garbage"))
	var d Decoder
	d.Reset(slices.Concat(garbage, sealed(t, 2, None, false)))
	passed := d.NextBatch()
	if !passed || !d.NextBatch() || !d.NextRecord() || d.Err() != nil {
		t.Fatalf("a batch that is passed over is read: %v", d.Err())
	}
}

func TestDecodePartOfABatch(t *testing.T) {
	set := slices.Concat(sealed(t, 5, Zstd, false), sealed(t, 2, None, false))
	var d Decoder
	d.Reset(set)
	if d.NextRecord() || d.Err() != nil {
		t.Error("a record before the first batch")
	}
	if !d.NextBatch() || !d.NextRecord() || !d.NextBatch() {
		t.Fatal(d.Err())
	}
	n := 0
	for d.NextRecord() {
		if !identical(owned(d.Record()), sampleAt(n)) {
			t.Errorf("record %d of the second batch reads as %+v", n, d.Record())
		}
		n++
	}
	if n != 2 || d.NextRecord() || d.NextBatch() || d.Err() != nil {
		t.Errorf("%d records, %v", n, d.Err())
	}
}

func TestDecodeBombs(t *testing.T) {
	const huge, bound = 128 << 20, 1 << 20
	zeros := make([]byte, 1<<20)
	bombs := map[Codec]func(w *bytes.Buffer) error{
		Gzip: func(w *bytes.Buffer) error {
			z := gzip.NewWriter(w)
			for range huge >> 20 {
				if _, err := z.Write(zeros); err != nil {
					return err
				}
			}
			return z.Close()
		},
		Zstd: func(w *bytes.Buffer) error {
			z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			for range huge >> 20 {
				if err == nil {
					_, err = z.Write(zeros)
				}
			}
			return errors.Join(err, z.Close())
		},
		LZ4: func(w *bytes.Buffer) error {
			z := lz4.NewWriter(w)
			for range huge >> 20 {
				if _, err := z.Write(zeros); err != nil {
					return err
				}
			}
			return z.Close()
		},
		Snappy: func(w *bytes.Buffer) error { // many blocks
			block := s2.EncodeSnappy(nil, zeros)
			w.WriteString(xerialHeader)
			for range huge >> 20 {
				w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
				w.Write(block)
			}
			return nil
		},
	}
	check := func(name string, set []byte) {
		d := Decoder{MaxInflated: bound}
		d.Reset(set)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if !d.NextBatch() || d.NextRecord() || !errors.Is(d.Err(), ErrTooLarge) {
			t.Errorf("%s: %v", name, d.Err())
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
			t.Errorf("%s of %d bytes: %d MiB allocated", name, len(set), n>>20)
		}
	}
	for codec, write := range bombs {
		var payload bytes.Buffer
		if err := write(&payload); err != nil {
			t.Fatal(err)
		}
		check(codec.String(), withPayload(codec, 1, payload.Bytes()))
	}
	check("bare snappy that says 4 GiB", withPayload(Snappy, 1, []byte("\xff\xff\xff\xff\x0f\x00")))
	check("zstd that says 300 MB", withPayload(Zstd, 1, []byte("\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x12\x01\x00\x00")))
}

func TestDecodeBoundIsExact(t *testing.T) {
	plain := sealed(t, 500, None, false)
	for _, codec := range allCodecs[1:] {
		set := sealed(t, 500, codec, false)
		for _, short := range []int{0, 1} {
			d := Decoder{MaxInflated: len(plain) - headerSize - short}
			records, _, err := walk(&d, set)
			if short == 0 && (err != nil || len(records) != 500) || short == 1 && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%v, %d byte(s) short: %d records, %v", codec, short, len(records), err)
			}
		}
	}
}

func TestDecoderLetsGoOfHugeBuffers(t *testing.T) {
	var big Batch
	mustAppend(t, &big, 1, nil, make([]byte, 16<<20), nil)
	if err := big.Seal(LZ4, false); err != nil {
		t.Fatal(err)
	}
	var d Decoder
	for _, set := range [][]byte{big.Stamp(1, 1, 1), sealed(t, 400, LZ4, false)} {
		if _, _, err := walk(&d, set); err != nil || cap(d.inflated) < 16<<20 {
			t.Fatalf("%d bytes kept, %v", cap(d.inflated), err)
		}
	}
	if d.Reset(nil); cap(d.inflated) != 0 {
		t.Errorf("%d bytes are kept after a small set", cap(d.inflated))
	}
}

func TestHeaders(t *testing.T) {
	var b Batch
	in := []RecordHeader{{"a", []byte("1")}, {"b", nil}, {"a", []byte("2")}, {"", []byte{}}}
	mustAppend(t, &b, 1, nil, nil, in)
	if err := b.Seal(None, false); err != nil {
		t.Fatal(err)
	}
	var d Decoder
	d.Reset(b.Stamp(1, 1, 1))
	if !d.NextBatch() || !d.NextRecord() {
		t.Fatal(d.Err())
	}
	h := d.Record().Headers
	if v, ok := h.Get("a"); !ok || string(v) != "2" {
		t.Errorf("the last a is %q, %v", v, ok)
	}
	if v, ok := h.Get("b"); !ok || v != nil {
		t.Errorf("b is %q, %v", v, ok)
	}
	if v, ok := h.Get("c"); ok || v != nil {
		t.Errorf("c is %q, %v", v, ok)
	}
	out := h.AppendTo(nil)
	if !slices.EqualFunc(in, out, func(x, y RecordHeader) bool { return x.Key == y.Key && sameBytes(x.Value, y.Value) }) {
		t.Errorf("headers read as %q", out)
	}
	if h.Len() != 4 {
		t.Errorf("%d headers", h.Len())
	}
	n := 0
	for _, _, ok := h.Next(); ok; _, _, ok = h.Next() {
		n++
	}
	if n != 4 || h.Len() != 0 || d.Record().Headers.Len() != 4 {
		t.Errorf("%d headers walked, %d left, %d in the record", n, h.Len(), d.Record().Headers.Len())
	}
	if _, ok := (Headers{}).Get("a"); ok {
		t.Error("no headers have an a")
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for _, codec := range allCodecs {
		set := slices.Concat(sealed(t, 3000, codec, true), readFile(t, "commit"), sealed(t, 3000, codec, true))
		var d Decoder
		read := func() {
			d.Reset(set)
			for d.NextBatch() {
				for d.NextRecord() {
					if _, _, found, err := d.Record().Mark(); found || err != nil {
						t.Fatal("no mark was written")
					}
				}
			}
		}
		read()
		if n := testing.AllocsPerRun(10, read); n > poolAllocs || d.Err() != nil {
			t.Errorf("%v: %v allocations per 6000 records, %v", codec, n, d.Err())
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, codec := range allCodecs { // small ones: the fuzzer is slow with large inputs
		f.Add(sealed(f, 30, codec, true), true)
	}
	f.Add(readFile(f, "commit"), true)
	f.Add(readFile(f, "abort"), true)
	f.Add(sealed(f, 3, None, true), false)
	f.Add(slices.Concat(sealed(f, 3, Snappy, true), sealed(f, 2, LZ4, true)), false)
	f.Add(withPayload(None, 0, nil), true)
	f.Fuzz(func(t *testing.T, set []byte, repair bool) {
		if repair && len(set) >= headerSize { // past the checksum, into the records
			set = patch(set, func(p []byte) []byte { p[atMagic] = magic2; return p })
		}
		checkWalk(t, set)
	})
}

// checkWalk reads any bytes: it must end, keep to its bounds, and what it gave
// must survive being written and read again.
func checkWalk(t *testing.T, set []byte) {
	const bound = 1 << 20
	d := Decoder{MaxInflated: bound}
	d.Reset(set)
	for d.NextBatch() {
		var again Batch
		last := d.Batch().BaseOffset - 1
		n := int32(0)
		for ; d.NextRecord(); n++ {
			r := d.Record()
			if r.Offset <= last || r.Offset > d.Batch().LastOffset() {
				t.Fatalf("offset %d after %d", r.Offset, last)
			}
			last = r.Offset
			if err := again.Append(r.Timestamp, r.Key, r.Value, r.Headers.AppendTo(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if d.Err() == nil && n != d.Batch().Count {
			t.Fatalf("%d of %d records and no error", n, d.Batch().Count)
		}
		if len(d.inflated) > bound {
			t.Fatalf("%d bytes inflated", len(d.inflated))
		}
		if n > 0 && n < 1000 {
			checkAgain(t, &again)
		}
	}
	if d.NextBatch() || d.NextRecord() {
		t.Fatal("the walk goes on after its end")
	}
}

func checkAgain(t *testing.T, b *Batch) {
	want := b.Len()
	for _, codec := range []Codec{None, Zstd} {
		b.wire = nil
		if err := b.Seal(codec, false); err != nil {
			t.Fatal(err)
		}
		var d Decoder
		if got, _, err := walk(&d, b.Stamp(1, 1, 1)); err != nil || len(got) != want {
			t.Fatalf("written again: %d of %d records, %v", len(got), want, err)
		}
	}
}

func BenchmarkDecoder(b *testing.B) {
	for _, codec := range allCodecs {
		b.Run(codec.String(), func(b *testing.B) {
			batch := benchBatch(b, 1<<20, 449)
			if err := batch.Seal(codec, true); err != nil {
				b.Fatal(err)
			}
			set := batch.Stamp(1, 2, 3)
			var d Decoder
			var n uint64
			b.ReportAllocs()
			b.SetBytes(int64(batch.Size()))
			for b.Loop() {
				d.Reset(set)
				for d.NextBatch() {
					for d.NextRecord() {
						m, _, _, err := d.Record().Mark()
						if err != nil {
							b.Fatal(err)
						}
						n += m.N
					}
				}
			}
			if d.Err() != nil || n == 0 && b.N > 1 {
				b.Fatal(d.Err())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Len()), "ns/record")
		})
	}
}

func newBytes(p []byte) protocol.Bytes {
	if p == nil {
		return nil
	}
	return protocol.NewBytes(p)
}
