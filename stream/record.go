package stream

// A RecordHeader is one header of a record to be written. A nil Value is
// written as null, an empty one as empty.
type RecordHeader struct {
	Key   string
	Value []byte
}

// A Record is one record as it was read. All its bytes are views that hold
// until the decoder goes to the next batch: who keeps them copies them.
type Record struct {
	// Offset is the record's place in its partition.
	Offset int64
	// Timestamp is in milliseconds since 1970: what the producer gave, or, on
	// topics with message.timestamp.type=LogAppendTime, when the broker
	// appended the batch.
	Timestamp int64
	// Key and Value are nil for null, and empty but not nil for no bytes.
	Key, Value []byte
	// Headers walks the record's headers.
	Headers Headers
}

// Headers is a view of a record's headers, in the order in which they were
// written. The zero value has none. Copying it is cheap and restarts nothing:
// each copy has its own place.
type Headers struct {
	raw  []byte // checked by the decoder: Next cannot run out of bounds
	left int
}

// Len returns how many headers Next has still to give.
func (h Headers) Len() int { return h.left }

// Next gives the next header. The slices are views, valid as long as the
// record's; a nil value is a null one. After the last header ok is false.
func (h *Headers) Next() (key, value []byte, ok bool) {
	if h.left == 0 {
		return nil, nil, false
	}
	h.left--
	var at int
	key, at = viewBytes(h.raw, 0)
	value, at = viewBytes(h.raw, at)
	h.raw = h.raw[at:]
	return key, value, true
}

// Get returns the value of the last header called key, which is the one that
// counts by Kafka's convention.
func (h Headers) Get(key string) (value []byte, ok bool) {
	for {
		k, v, more := h.Next()
		if !more {
			return value, ok
		}
		if string(k) == key {
			value, ok = v, true
		}
	}
}

// AppendTo appends copies of the headers to dst; they hold for ever.
func (h Headers) AppendTo(dst []RecordHeader) []RecordHeader {
	for {
		k, v, more := h.Next()
		if !more {
			return dst
		}
		c := RecordHeader{Key: string(k)}
		if v != nil {
			c.Value = append(make([]byte, 0, len(v)), v...)
		}
		dst = append(dst, c)
	}
}
