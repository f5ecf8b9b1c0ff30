package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// DefaultMaxInflated bounds the records of one batch, uncompressed, where a
// Decoder is given no other bound.
const DefaultMaxInflated = 64 << 20

// What can be wrong with a batch; a *DecodeError wraps one of these,
// ErrTooLarge or ErrUnknownCodec.
var (
	ErrChecksum     = errors.New("checksum of the batch does not match its bytes")
	ErrUnknownMagic = errors.New("message format is not version 2")
	ErrMalformed    = errors.New("batch is malformed")
)

// A DecodeError says that a batch cannot be read. Nothing was skipped: what
// stands before the batch was given, nothing of what stands after it.
type DecodeError struct {
	// Offset is the base offset that the batch claims.
	Offset int64
	// Err says what is wrong.
	Err error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode batch at offset %d: %v", e.Offset, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// Fatal says that reading the same bytes again will not help.
func (e *DecodeError) Fatal() bool { return true }

// Hint says what an operator can do.
func (e *DecodeError) Hint() string {
	switch {
	case errors.Is(e.Err, ErrTooLarge):
		return "a producer wrote a batch larger than the bound of this reader; raise the bound if it is not an attack"
	case errors.Is(e.Err, ErrUnknownMagic), errors.Is(e.Err, ErrUnknownCodec):
		return "the topic holds batches of a message format that is not read here (Kafka before 0.11, or a newer format)"
	}
	return "the bytes that the broker returned are damaged; compare its replicas (kafka-dump-log --deep-iteration)"
}

// Control tells a batch of records from the markers that end transactions.
type Control int8

// Kinds of batches.
const (
	NotControl     Control = iota // records
	ControlAbort                  // the producer's transaction was aborted
	ControlCommit                 // the producer's transaction was committed
	ControlUnknown                // another control record, or one whose marker compaction removed
)

// A BatchInfo is the header of a batch.
type BatchInfo struct {
	BaseOffset      int64
	LastOffsetDelta int32
	Count           int32 // records in it; compaction may leave fewer than offsets, or none
	LeaderEpoch     int32
	ProducerID      int64 // -1: not an idempotent producer's
	ProducerEpoch   int16
	BaseSequence    int32
	FirstTimestamp  int64 // ms; the base of the records' deltas
	MaxTimestamp    int64 // ms; each record's timestamp if LogAppendTime
	Codec           Codec
	LogAppendTime   bool
	Transactional   bool
	Control         Control
	Size            int // bytes on the wire
}

// LastOffset returns the last offset that the batch covers. A record with this
// offset need not exist: compaction removes records and leaves offsets.
func (b *BatchInfo) LastOffset() int64 { return b.BaseOffset + int64(b.LastOffsetDelta) }

// NextOffset returns where reading goes on after the batch.
func (b *BatchInfo) NextOffset() int64 { return b.LastOffset() + 1 }

// A Decoder walks a record set, the bytes of one partition in a fetch
// response, batch by batch and record by record:
//
//	d.Reset(recordSet)
//	for d.NextBatch() {
//		if !filter.Keep(d.Batch()) {
//			continue
//		}
//		for d.NextRecord() {
//			use(d.Record())
//		}
//	}
//	err := d.Err()
//
// A batch is inflated at its first NextRecord, so dropped ones cost only their
// checksum. Err must be asked when a loop ends. An error is never passed over:
// after it both loops stay ended until Reset. Buffers are reused: no
// allocation per record, and none per batch once they are large enough. The
// zero value is ready. Not safe for concurrent use.
type Decoder struct {
	// MaxInflated bounds the uncompressed records of one batch, in bytes, and
	// the window that a zstd frame may ask for; 0 means DefaultMaxInflated.
	MaxInflated int

	set       []byte // batches not reached yet
	truncated bool
	err       error

	batch    BatchInfo
	payload  []byte // the batch's records as they came
	records  []byte // the batch's records not reached yet, uncompressed
	left     int32  // how many records that is
	opened   bool   // records is set
	lastSeen int32  // offset delta of the record before
	record   Record

	inflated []byte
	used     int // most of inflated that a batch used since Reset
}

// Reset begins a new record set. The decoder keeps a view of it until the next
// Reset.
func (d *Decoder) Reset(recordSet []byte) {
	d.inflated = shrink(d.inflated, d.used)
	d.used = 0
	d.set, d.truncated, d.err = recordSet, false, nil
	d.batch, d.record = BatchInfo{}, Record{}
	d.payload, d.records, d.left, d.opened = nil, nil, 0, true
}

// Err returns what ended the walk, a *DecodeError, or nil at the set's end.
func (d *Decoder) Err() error { return d.err }

// Truncated says, once NextBatch has returned false, that the set ends inside
// a batch. Brokers cut the last batch where the asked size ends; it comes
// whole with the next fetch. A set that holds nothing else is no progress: the
// caller must ask for more, or stop.
func (d *Decoder) Truncated() bool { return d.truncated }

// Batch returns the current batch's header, valid until the next NextBatch.
func (d *Decoder) Batch() *BatchInfo { return &d.batch }

// Record returns the current record, valid until the next NextRecord; its
// bytes hold until the next NextBatch.
func (d *Decoder) Record() *Record { return &d.record }

// NextBatch goes to the next batch, whether or not all records of this one
// were read, and checks its length, format and checksum. It returns false at
// the end of the set, at a batch that is cut off, and on an error.
func (d *Decoder) NextBatch() bool {
	if d.err != nil || len(d.set) == 0 {
		return false
	}
	p, ok := d.cutBatch()
	if !ok {
		return false
	}
	d.parseHeader(p)
	d.payload, d.records, d.opened = p[headerSize:], nil, false
	d.left, d.lastSeen = d.batch.Count, -1
	switch {
	case d.batch.Count < 0 || d.batch.LastOffsetDelta < 0 || d.batch.BaseOffset < 0 ||
		d.batch.BaseOffset > math.MaxInt64-1-int64(d.batch.LastOffsetDelta):
		return d.fail(fmt.Errorf("%w: %d records, last offset delta %d", ErrMalformed, d.batch.Count, d.batch.LastOffsetDelta))
	case d.batch.Codec > Zstd:
		return d.fail(fmt.Errorf("%w %d", ErrUnknownCodec, int8(d.batch.Codec)))
	case d.batch.Control != NotControl:
		return d.readControl()
	}
	return true
}

// cutBatch takes the first batch off the set; false if it is cut off or wrong.
func (d *Decoder) cutBatch() ([]byte, bool) {
	if len(d.set) < headerSize {
		// Too short for any batch. A wrong format is still worth an error: its
		// byte lies in the same place in all of them.
		if len(d.set) > atMagic && d.set[atMagic] != magic2 {
			return nil, d.failMagic()
		}
		d.truncated, d.set = true, nil
		return nil, false
	}
	d.batch = BatchInfo{BaseOffset: int64(binary.BigEndian.Uint64(d.set))}
	if d.set[atMagic] != magic2 {
		return nil, d.failMagic()
	}
	length := int64(int32(binary.BigEndian.Uint32(d.set[atLength:])))
	size := length + lengthOverhead
	if size < headerSize {
		return nil, d.fail(fmt.Errorf("%w: length %d", ErrMalformed, length))
	}
	if size > int64(len(d.set)) {
		d.truncated, d.set = true, nil
		return nil, false
	}
	p := d.set[:size:size]
	d.set = d.set[size:]
	if crc32.Checksum(p[atAttributes:], castagnoli) != binary.BigEndian.Uint32(p[atChecksum:]) {
		return nil, d.fail(ErrChecksum)
	}
	return p, true
}

func (d *Decoder) failMagic() bool {
	d.batch = BatchInfo{BaseOffset: int64(binary.BigEndian.Uint64(d.set))}
	return d.fail(fmt.Errorf("%w but %d", ErrUnknownMagic, int8(d.set[atMagic])))
}

// fail ends the walk; it returns false for NextBatch and NextRecord to return.
func (d *Decoder) fail(err error) bool {
	d.err = &DecodeError{Offset: d.batch.BaseOffset, Err: err}
	d.set, d.records, d.left, d.opened = nil, nil, 0, true
	return false
}

func (d *Decoder) parseHeader(p []byte) {
	be := binary.BigEndian
	attributes := be.Uint16(p[atAttributes:])
	d.batch = BatchInfo{
		BaseOffset:      int64(be.Uint64(p[atBaseOffset:])),
		LastOffsetDelta: int32(be.Uint32(p[atLastOffsetDelta:])),
		Count:           int32(be.Uint32(p[atCount:])),
		LeaderEpoch:     int32(be.Uint32(p[atLeaderEpoch:])),
		ProducerID:      int64(be.Uint64(p[atProducerID:])),
		ProducerEpoch:   int16(be.Uint16(p[atProducerEpoch:])),
		BaseSequence:    int32(be.Uint32(p[atBaseSequence:])),
		FirstTimestamp:  int64(be.Uint64(p[atBaseTimestamp:])),
		MaxTimestamp:    int64(be.Uint64(p[atMaxTimestamp:])),
		Codec:           Codec(attributes & codecMask),
		LogAppendTime:   attributes&attrLogAppendTime != 0,
		Transactional:   attributes&attrTransactional != 0,
		Size:            len(p),
	}
	if attributes&attrControl != 0 {
		d.batch.Control = ControlUnknown
	}
}

// readControl parses the marker of a control batch. Its record is left to be
// read by NextRecord too.
func (d *Decoder) readControl() bool {
	if d.batch.Count == 0 {
		return true
	}
	if !d.open() {
		return false
	}
	records, left := d.records, d.left
	if !d.NextRecord() {
		return false
	}
	d.batch.Control = markerOf(d.record.Key)
	d.records, d.left, d.lastSeen, d.record = records, left, -1, Record{}
	return true
}

// markerOf reads a control record's key: version, then type, both int16.
func markerOf(key []byte) Control {
	if len(key) < 4 {
		return ControlUnknown
	}
	switch binary.BigEndian.Uint16(key[2:]) {
	case 0:
		return ControlAbort
	case 1:
		return ControlCommit
	}
	return ControlUnknown
}

// open makes the batch's records readable, once.
func (d *Decoder) open() bool {
	d.opened = true
	switch {
	case d.batch.Codec == None:
		d.records = d.payload
		return true
	case d.batch.Count == 0: // nothing to inflate
		return true
	}
	limit := d.MaxInflated
	if limit <= 0 {
		limit = DefaultMaxInflated
	}
	inflated, err := d.batch.Codec.inflate(d.inflated[:0], d.payload, limit)
	if err != nil {
		if !errors.Is(err, ErrTooLarge) {
			err = fmt.Errorf("%w: inflate %v: %w", ErrMalformed, d.batch.Codec, err)
		}
		return d.fail(err)
	}
	d.inflated, d.records = inflated, inflated
	d.used = max(d.used, len(inflated))
	return true
}

// NextRecord goes to the batch's next record. It returns false after the last
// one and on an error.
func (d *Decoder) NextRecord() bool {
	if !d.opened && !d.open() {
		return false
	}
	if d.left == 0 {
		if len(d.records) > 0 {
			return d.fail(fmt.Errorf("%w: %d bytes after the last record", ErrMalformed, len(d.records)))
		}
		return false
	}
	size, at := getVarint(d.records, 0)
	if at < 0 || size < 0 || size > int64(len(d.records)-at) {
		return d.failRecord("length")
	}
	end := at + int(size)
	body := d.records[at:end]
	d.records = d.records[end:]
	d.left--
	return d.parseRecord(body)
}

// parseRecord reads a record's body: attributes, timestamp delta, offset
// delta, key, value, headers.
func (d *Decoder) parseRecord(p []byte) bool {
	if len(p) == 0 {
		return d.failRecord("attributes")
	}
	tsDelta, at := getVarint(p, 1)
	offsetDelta, at := getVarint(p, at)
	if at < 0 || offsetDelta <= int64(d.lastSeen) || offsetDelta > int64(d.batch.LastOffsetDelta) {
		return d.failRecord("timestamp or offset delta")
	}
	d.lastSeen = int32(offsetDelta)
	r := &d.record
	r.Offset = d.batch.BaseOffset + offsetDelta
	r.Timestamp = d.batch.FirstTimestamp + tsDelta
	if d.batch.LogAppendTime {
		r.Timestamp = d.batch.MaxTimestamp
	}
	if r.Key, at = viewBytes(p, at); at < 0 {
		return d.failRecord("key")
	}
	if r.Value, at = viewBytes(p, at); at < 0 {
		return d.failRecord("value")
	}
	count, at := getVarint(p, at)
	if at < 0 || !checkHeaders(p[at:], count) {
		return d.failRecord("headers")
	}
	r.Headers = Headers{raw: p[at:], left: int(count)}
	return true
}

func (d *Decoder) failRecord(what string) bool {
	return d.fail(fmt.Errorf("%w: %s of record %d", ErrMalformed, what, d.batch.Count-d.left))
}

// checkHeaders says whether p is exactly count headers: key, not null, value.
func checkHeaders(p []byte, count int64) bool {
	if count < 0 {
		return false
	}
	at := 0
	for range count {
		var key []byte
		if key, at = viewBytes(p, at); key == nil {
			return false
		}
		if _, at = viewBytes(p, at); at < 0 {
			return false
		}
	}
	return at == len(p)
}
