package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// Where the fields of a record batch's header lie (Kafka's message format,
// magic 2, KIP-98). All are big-endian. The checksum is CRC32C of everything
// from the attributes to the batch's end.
const (
	atBaseOffset      = 0  // int64: 0 from a producer
	atLength          = 8  // int32: bytes after this field
	atLeaderEpoch     = 12 // int32: -1 from a producer
	atMagic           = 16 // int8: 2
	atChecksum        = 17 // uint32
	atAttributes      = 21 // int16
	atLastOffsetDelta = 23 // int32
	atBaseTimestamp   = 27 // int64: ms
	atMaxTimestamp    = 35 // int64: ms
	atProducerID      = 43 // int64
	atProducerEpoch   = 51 // int16
	atBaseSequence    = 53 // int32
	atCount           = 57 // int32: records
	headerSize        = 61

	lengthOverhead = atLength + 4 // bytes that the length does not count
	magic2         = 2
)

// Bits of the attributes.
const (
	codecMask         = 0x07
	attrLogAppendTime = 1 << 3
	attrTransactional = 1 << 4
	attrControl       = 1 << 5
)

// MaxRecordOverhead is the most that Append adds to the bytes of a record's
// key and value, with no headers: length, attributes, timestamp and offset
// deltas, key and value lengths, header count. A header adds its bytes and at
// most 10 more.
const MaxRecordOverhead = 5 + 1 + 10 + 5 + 5 + 5 + 5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// ErrBatchFull says that a record was not appended because the batch would
	// no longer be counted by Kafka's 31 bits.
	ErrBatchFull = errors.New("batch is full: a record batch holds less than 2 GiB")
	errSealed    = errors.New("batch is sealed")
	errEmpty     = errors.New("batch has no records")
)

// A Batch is one record batch under construction, for one partition. Its life:
// Append any number of times, Seal once, Stamp at least once, send, Reset. The
// zero value is ready. The buffers are kept over Reset, so that a batch that
// is used again allocates nothing. A Batch is not safe for concurrent use, but
// may be handed from one goroutine to another.
type Batch struct {
	buf    []byte // header and records as appended
	packed []byte // header and compressed records, when codec is not None
	wire   []byte // what Stamp patches: buf or packed; nil until sealed

	count          int32
	firstTimestamp int64
	maxTimestamp   int64
}

// Reset empties the batch. Bytes returned by Stamp are no longer valid. A
// buffer much larger than its last use is let go, so that one huge row does
// not stay in memory.
func (b *Batch) Reset() {
	used := len(b.buf)
	b.buf, b.packed, b.wire = shrink(b.buf, used), shrink(b.packed, used), nil
	b.count, b.firstTimestamp, b.maxTimestamp = 0, 0, 0
}

// shrink empties buf, or gives it up if it is large and used was little.
func shrink(buf []byte, used int) []byte {
	const small = 1 << 20
	if cap(buf) > small && used < cap(buf)/4 {
		return nil
	}
	return buf[:0]
}

// Append adds a record and copies its bytes: the only copy on its way. ts is
// in milliseconds since 1970; the first record's is the batch's base. A nil
// key or value is null, an empty one is empty. The record's offset will be
// the batch's base offset plus Len() as it was before the call.
//
// It fails, and adds nothing, with ErrBatchFull and on a sealed batch.
func (b *Batch) Append(ts int64, key, value []byte, headers []RecordHeader) error {
	if b.wire != nil {
		return errSealed
	}
	if b.count == 0 {
		b.begin(ts)
	}
	tsDelta := ts - b.firstTimestamp
	body := 1 + varintSize(tsDelta) + varintSize(int64(b.count)) + sizeOf(key) + sizeOf(value) + headersSize(headers)
	size := varintSize(body) + body
	if size > math.MaxInt32-int64(len(b.buf)) {
		return ErrBatchFull
	}
	at := len(b.buf)
	b.buf = slices.Grow(b.buf, int(size))[:at+int(size)]
	p := b.buf
	at = putVarint(p, at, body)
	p[at] = 0 // attributes: none are defined
	at = putVarint(p, at+1, tsDelta)
	at = putVarint(p, at, int64(b.count))
	at = putBytes(p, at, key)
	at = putBytes(p, at, value)
	putHeaders(p, at, headers)
	b.count++
	b.maxTimestamp = max(b.maxTimestamp, ts)
	return nil
}

// begin makes room for the header, which Seal and Stamp write.
func (b *Batch) begin(ts int64) {
	b.buf = slices.Grow(b.buf[:0], headerSize)[:headerSize]
	b.firstTimestamp, b.maxTimestamp = ts, ts
}

// Len returns the number of records.
func (b *Batch) Len() int { return int(b.count) }

// Size returns the uncompressed size in bytes, header included; 0 if empty.
func (b *Batch) Size() int {
	if b.count == 0 {
		return 0
	}
	return len(b.buf)
}

// WireSize returns the size in bytes of what Stamp returns; 0 before Seal.
func (b *Batch) WireSize() int { return len(b.wire) }

// Timestamps returns the first record's and the highest timestamp.
func (b *Batch) Timestamps() (first, highest int64) { return b.firstTimestamp, b.maxTimestamp }

// Seal ends the batch: it compresses the records, once, and writes the header
// but for what Stamp writes. Records that codec does not make smaller are left
// uncompressed. It fails on an empty or sealed batch, and if codec is unknown;
// the batch is then as before.
func (b *Batch) Seal(codec Codec, transactional bool) error {
	switch {
	case b.wire != nil:
		return fmt.Errorf("seal: %w", errSealed)
	case b.count == 0:
		return fmt.Errorf("seal: %w", errEmpty)
	}
	wire, err := b.pack(codec)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if len(wire) == len(b.buf) {
		codec = None
	}
	attributes := uint16(codec)
	if transactional {
		attributes |= attrTransactional
	}
	b.putHeader(wire, attributes)
	b.wire = wire
	return nil
}

// pack returns the batch with room for its header: compressed, or as it is.
func (b *Batch) pack(codec Codec) ([]byte, error) {
	if codec == None {
		return b.buf, nil
	}
	b.packed = slices.Grow(b.packed[:0], headerSize)[:headerSize]
	packed, err := codec.compress(b.packed, b.buf[headerSize:])
	if err != nil {
		return nil, err
	}
	b.packed = packed
	if len(packed) >= len(b.buf) {
		return b.buf, nil
	}
	return packed, nil
}

func (b *Batch) putHeader(p []byte, attributes uint16) {
	be := binary.BigEndian
	be.PutUint64(p[atBaseOffset:], 0)
	be.PutUint32(p[atLength:], uint32(len(p)-lengthOverhead))
	be.PutUint32(p[atLeaderEpoch:], math.MaxUint32) // -1
	p[atMagic] = magic2
	be.PutUint16(p[atAttributes:], attributes)
	be.PutUint32(p[atLastOffsetDelta:], uint32(b.count-1))
	be.PutUint64(p[atBaseTimestamp:], uint64(b.firstTimestamp))
	be.PutUint64(p[atMaxTimestamp:], uint64(b.maxTimestamp))
	be.PutUint32(p[atCount:], uint32(b.count))
}

// Stamp writes the producer's id and epoch and the sequence number of the
// first record (-1 each for a producer that is not idempotent), then the
// checksum, and returns the bytes to send: the batch without the size that
// precedes it in a request. They are valid until the next Stamp or Reset. It
// may be called again with other values, as a retry by a new producer needs.
// A batch that is not sealed has no bytes: Stamp returns nil.
func (b *Batch) Stamp(producerID int64, producerEpoch int16, sequence int32) []byte {
	if b.wire == nil {
		return nil
	}
	be := binary.BigEndian
	be.PutUint64(b.wire[atProducerID:], uint64(producerID))
	be.PutUint16(b.wire[atProducerEpoch:], uint16(producerEpoch))
	be.PutUint32(b.wire[atBaseSequence:], uint32(sequence))
	be.PutUint32(b.wire[atChecksum:], crc32.Checksum(b.wire[atAttributes:], castagnoli))
	return b.wire
}

// sizeOf returns the size of a nullable byte string: length and bytes.
func sizeOf(p []byte) int64 {
	if p == nil {
		return 1
	}
	return varintSize(int64(len(p))) + int64(len(p))
}

func headersSize(headers []RecordHeader) int64 {
	size := varintSize(int64(len(headers)))
	for i := range headers {
		key := int64(len(headers[i].Key))
		size += varintSize(key) + key + sizeOf(headers[i].Value)
	}
	return size
}

func putBytes(p []byte, at int, v []byte) int {
	if v == nil {
		p[at] = 1 // zigzag of -1
		return at + 1
	}
	at = putVarint(p, at, int64(len(v)))
	return at + copy(p[at:], v)
}

func putHeaders(p []byte, at int, headers []RecordHeader) {
	at = putVarint(p, at, int64(len(headers)))
	for i := range headers {
		at = putVarint(p, at, int64(len(headers[i].Key)))
		at += copy(p[at:], headers[i].Key)
		at = putBytes(p, at, headers[i].Value)
	}
}
