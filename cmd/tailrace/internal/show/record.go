package show

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// Record is a record of a topic as a person or a script reads it.
type Record struct {
	Topic         string            `json:"topic"`
	Partition     int32             `json:"partition"`
	Offset        int64             `json:"offset"`
	Timestamp     string            `json:"timestamp"` // RFC 3339, milliseconds, UTC
	Key           json.RawMessage   `json:"key"`       // null: no key, or one that could not be decoded
	KeySchemaID   int32             `json:"key_schema_id,omitempty"`
	Value         json.RawMessage   `json:"value"` // null: a tombstone, or one that could not be decoded
	ValueSchemaID int32             `json:"value_schema_id,omitempty"`
	Tombstone     bool              `json:"tombstone"`
	Mark          *Mark             `json:"tailrace,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"` // all but tailrace; bytes that are no text as base64
	Error         string            `json:"error,omitempty"`   // why key, value or header tailrace could not be decoded
}

// Mark is the header tailrace.
type Mark struct {
	Epoch uint64   `json:"epoch"`
	File  uint64   `json:"file"`
	Pos   uint64   `json:"pos"`
	Row   uint64   `json:"row"`
	N     uint64   `json:"n"`
	Flags []string `json:"flags,omitempty"` // backfill, rebased, end
	Parts []Part   `json:"parts,omitempty"` // of an END record: the partitions that its transaction touched
}

// Part is one partition of an END record.
type Part struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Row       uint64 `json:"row"`
}

// SchemaSource gives the text of a schema by its id; *registry.Client is one.
type SchemaSource interface {
	SchemaByID(ctx context.Context, id int32) (string, error)
}

// Reader makes Records. It may be used by several goroutines.
type Reader struct {
	source SchemaSource

	mu    sync.Mutex
	known map[int32]*Schema
}

// NewReader returns a Reader that asks source for schemas.
func NewReader(source SchemaSource) *Reader {
	return &Reader{source: source, known: map[int32]*Schema{}}
}

// Record renders r. What cannot be decoded is said in its Error; the error result is for
// a registry that does not answer.
func (d *Reader) Record(ctx context.Context, topic string, partition int32, r *stream.Record) (*Record, error) {
	out := &Record{
		Topic: topic, Partition: partition, Offset: r.Offset,
		Timestamp: time.UnixMilli(r.Timestamp).UTC().Format("2006-01-02T15:04:05.000Z"),
		Tombstone: r.Value == nil,
	}
	var problems []string
	note := func(what string, err error) {
		problems = append(problems, what+": "+err.Error())
	}
	for _, part := range []struct {
		what  string
		bytes []byte
		text  *json.RawMessage
		id    *int32
	}{{"key", r.Key, &out.Key, &out.KeySchemaID}, {"value", r.Value, &out.Value, &out.ValueSchemaID}} {
		if part.bytes == nil {
			continue
		}
		text, id, err := d.framed(ctx, part.bytes)
		var bad *undecodable
		if err != nil && !errors.As(err, &bad) {
			return nil, fmt.Errorf("decode %s of %s/%d@%d: %w", part.what, topic, partition, r.Offset, err)
		}
		if err != nil {
			note(part.what, err)
		}
		*part.text, *part.id = text, id
	}
	if err := out.headers(r); err != nil {
		note("header tailrace", err)
	}
	out.Error = strings.Join(problems, "; ")
	return out, nil
}

// undecodable is what is wrong with bytes, as opposed to with the registry.
type undecodable struct{ err error }

// Error implements error.
func (e *undecodable) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *undecodable) Unwrap() error { return e.err }

var errFrame = &undecodable{errors.New("not Avro in a registry's frame (a zero byte and a schema id of four)")}

// framed decodes `00`, schema id, Avro.
func (d *Reader) framed(ctx context.Context, b []byte) (json.RawMessage, int32, error) {
	const frame = 5
	if len(b) < frame || b[0] != 0 {
		return nil, 0, errFrame
	}
	id := int32(binary.BigEndian.Uint32(b[1:frame]))
	s, err := d.schema(ctx, id)
	if err != nil {
		return nil, id, err
	}
	text, err := s.JSON(b[frame:])
	if err != nil {
		return nil, id, &undecodable{fmt.Errorf("with schema %d: %w", id, err)}
	}
	return text, id, nil
}

// schema returns the schema with an id, from memory if it was asked for before.
func (d *Reader) schema(ctx context.Context, id int32) (*Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.known[id]; ok {
		return s, nil
	}
	text, err := d.source.SchemaByID(ctx, id)
	if err != nil {
		if registry.NotFound(err) {
			return nil, &undecodable{fmt.Errorf("schema %d is not in the registry", id)}
		}
		return nil, err
	}
	s, err := Parse(text)
	if err != nil {
		return nil, &undecodable{fmt.Errorf("schema %d: %w", id, err)}
	}
	d.known[id] = s
	return s, nil
}

// headers renders a record's headers.
func (r *Record) headers(from *stream.Record) error {
	h := from.Headers
	for key, value, ok := h.Next(); ok; key, value, ok = h.Next() {
		if string(key) == stream.MarkKey {
			continue
		}
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		text := string(value)
		if !utf8.Valid(value) {
			text = base64.StdEncoding.EncodeToString(value)
		}
		r.Headers[string(key)] = text
	}
	m, rest, found, err := from.Mark()
	if err != nil || !found {
		return err
	}
	r.Mark = &Mark{Epoch: m.Epoch, File: m.File, Pos: m.Pos, Row: m.Row, N: m.N}
	for _, flag := range []struct {
		bit  byte
		name string
	}{{stream.FlagBackfill, "backfill"}, {stream.FlagRebased, "rebased"}, {stream.FlagEnd, "end"}} {
		if m.Flags&flag.bit != 0 {
			r.Mark.Flags = append(r.Mark.Flags, flag.name)
		}
	}
	if m.Flags&stream.FlagEnd == 0 {
		return nil
	}
	parts, err := stream.ParseEndParts(rest)
	for _, p := range parts {
		r.Mark.Parts = append(r.Mark.Parts, Part{p.Topic, p.Partition, p.Row})
	}
	return err
}
