package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// event is a change made ready to be sent. It holds no bytes of the batch.
type event struct {
	change *sinks.Change // for errors
	id     string        // what a receiver knows a repetition by
	key    string        // events of one key are sent one after the other
	url    *url.URL
	header []attribute // of the request, beside what belongs to the attempt
	body   []byte
}

// attribute is one of CloudEvents' attributes, or a header.
type attribute struct{ name, value string }

// writer makes events. It is used from one goroutine.
type writer struct {
	cfg    *Config
	to     *compiled
	rows   sinks.Rows
	values rowValues
}

// specVersion is CloudEvents' version.
const specVersion = "1.0"

// What a body is.
const (
	typeJSON  = "application/json"
	typeEvent = "application/cloudevents+json"
	typeBatch = "application/cloudevents-batch+json"
)

// event makes the event of a change; nil for a tombstone, which says nothing that the delete
// before it has not said. An error is about the change.
func (w *writer) event(c *sinks.Change) (*event, error) {
	if c.Op == sinks.OpTombstone {
		return nil, nil
	}
	if err := w.rows.Decode(c); err != nil {
		return nil, refuse(c, adviceDecode, err)
	}
	attributes, err := w.attributes(c)
	if err != nil {
		return nil, refuse(c, adviceValue, err)
	}
	e := &event{change: c, id: attributes[1].value, key: keyOf(c)}
	data, err := w.data(nil, c)
	if err != nil {
		return nil, refuse(c, adviceValue, err)
	}
	if w.cfg.Mode == Structured || w.cfg.Batch > 1 {
		if e.body, err = envelope(attributes, data); err != nil {
			return nil, refuse(c, adviceValue, err)
		}
		e.header = append(e.header, attribute{"Content-Type", typeEvent})
	} else {
		e.body = data
		e.header = append(e.header, attribute{"Content-Type", typeJSON})
		for _, a := range attributes {
			e.header = append(e.header, attribute{"ce-" + a.name, string(appendHeader(nil, []byte(a.value)))})
		}
	}
	if err := w.address(e, c); err != nil {
		return nil, refuse(c, adviceTemplate, err)
	}
	return e, nil
}

const (
	adviceDecode   = "its bytes are not what its schema says: another program wrote it, or the topic is damaged"
	adviceValue    = "the value has no form in JSON: change it at the source, or leave out its column"
	adviceTemplate = "every change must have the value that the template asks for: use {key.COLUMN}, which deletes have too, or a column that is never null"
)

// address renders the templates.
func (w *writer) address(e *event, c *sinks.Change) (err error) {
	w.values.rows, w.values.c = &w.rows, c
	if e.url, err = w.to.url.address(w.to.base, &w.values); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	for _, h := range w.to.headers {
		value, err := h.value.render(nil, &w.values)
		if err != nil {
			return fmt.Errorf("header %s: %w", h.name, err)
		}
		e.header = append(e.header, attribute{h.name, string(value)})
	}
	return nil
}

// keyOf returns what changes of one row have in common: the topic, and the key without the
// schema's id, which may change while the row stays. Without a key all of a topic is one.
func keyOf(c *sinks.Change) string {
	key := c.Key
	if len(key) >= schemas.FrameSize {
		key = key[schemas.FrameSize:]
	}
	return c.Partition.Topic + "\x00" + string(key)
}

// eventID returns the id of a change's event: the capture's name, then epoch, file, position
// and row, by which a record has its place in the source's log. The same change has the same
// id, whoever sends it when.
func eventID(capture []byte, p sinks.Place) string {
	id := append([]byte(nil), capture...)
	for _, n := range [4]uint64{p.Epoch, p.File, p.Pos, p.Row} {
		id = strconv.AppendUint(append(id, ':'), n, 10)
	}
	return string(id)
}

// attributes returns what CloudEvents calls the context, named as Debezium names it: each
// field of the source block is an extension, iodebezium and its name, longs as text.
func (w *writer) attributes(c *sinks.Change) ([]attribute, error) {
	var connector, capture []byte
	extensions := []attribute{{"iodebeziumop", string(c.Op)}}
	var failed error
	w.rows.SourceFields(func(name string, v sinks.Value) bool {
		switch name {
		case "connector":
			connector = v.Bytes()
		case "name":
			capture = v.Bytes()
		}
		text, _, err := appendPlain(nil, v)
		if err != nil {
			failed = fmt.Errorf("source.%s: %w", name, err)
			return false
		}
		extensions = append(extensions, attribute{"iodebezium" + strings.ToLower(strings.ReplaceAll(name, "_", "")), string(text)})
		return true
	})
	if failed != nil {
		return nil, failed
	}
	return append([]attribute{
		{"specversion", specVersion},
		{"id", eventID(capture, c.Mark.Place)},
		{"source", "/debezium/" + string(connector) + "/" + string(capture)},
		{"type", "io.debezium.connector." + string(connector) + ".DataChangeEvent"},
		{"time", string(schemas.AppendInstantText(nil, w.rows.CommittedMicros()))},
	}, extensions...), nil
}

// envelope returns a structured event.
func envelope(attributes []attribute, data []byte) (dst []byte, err error) {
	dst = append(dst, '{')
	for _, a := range attributes {
		dst = append(append(dst, '"'), a.name...)
		if dst, err = appendString(append(dst, `":`...), a.value); err != nil {
			return dst, fmt.Errorf("attribute %s: %w", a.name, err)
		}
		dst = append(dst, ',')
	}
	dst = append(dst, `"datacontenttype":"`+typeJSON+`","data":`...)
	return append(append(dst, data...), '}'), nil
}

// data appends the event's data:
//
//	{"op":"u","schema":"public","table":"orders","commit_time":"2024-05-06T07:08:09.123456Z",
//	 "key":{"id":1},"before":null,"after":{"id":1,"price":"12.50"},"unchanged":["note"]}
//
// Columns that the source did not log because they were not changed are in neither row, but
// in unchanged. When a row's key changes, its delete has new_key and its insert old_key.
func (w *writer) data(dst []byte, c *sinks.Change) (_ []byte, err error) {
	dst = append(append(dst, `{"op":"`...), c.Op)
	dst = append(dst, `","schema":`...)
	if dst, err = appendString(dst, w.rows.SourceSchema()); err != nil {
		return dst, fmt.Errorf("schema: %w", err)
	}
	if dst, err = appendString(append(dst, `,"table":`...), w.rows.SourceTable()); err != nil {
		return dst, fmt.Errorf("table: %w", err)
	}
	dst = append(dst, `,"commit_time":"`...)
	dst = append(schemas.AppendInstantText(dst, w.rows.CommittedMicros()), '"')
	if dst, err = w.key(append(dst, `,"key":`...), c); err != nil {
		return dst, err
	}
	var unchanged []int
	if dst, unchanged, err = appendRow(append(dst, `,"before":`...), c.Table, w.rows.Before(), unchanged); err != nil {
		return dst, fmt.Errorf("before: %w", err)
	}
	if dst, unchanged, err = appendRow(append(dst, `,"after":`...), c.Table, w.rows.After(), unchanged[:0]); err != nil {
		return dst, fmt.Errorf("after: %w", err)
	}
	if len(unchanged) > 0 {
		dst = append(dst, `,"unchanged":`...)
		for i, column := range unchanged {
			dst = append(dst, "[,"[min(i, 1)])
			if dst, err = appendString(dst, c.Table.Columns[column].Name); err != nil {
				return dst, err
			}
		}
		dst = append(dst, ']')
	}
	dst = appendOther(dst, "old_key", c.OldKey)
	return append(appendOther(dst, "new_key", c.NewKey), '}'), nil
}

// key appends the key's columns.
func (w *writer) key(dst []byte, c *sinks.Change) (_ []byte, err error) {
	if len(c.Table.Key) == 0 {
		return append(dst, "null"...), nil
	}
	row, err := w.rows.Key(c)
	if err != nil {
		return dst, err
	}
	for i, column := range c.Table.Key {
		if dst, err = appendColumn(append(dst, "{,"[min(i, 1)]), &c.Table.Columns[column], row.Column(i)); err != nil {
			return dst, fmt.Errorf("key: %w", err)
		}
	}
	return append(dst, '}'), nil
}

// appendRow appends a row's columns, and to unchanged those that it leaves out.
func appendRow(dst []byte, t *sinks.Table, row sinks.Row, unchanged []int) (_ []byte, _ []int, err error) {
	if !row.Present() {
		return append(dst, "null"...), unchanged, nil
	}
	dst = append(dst, '{')
	first := true
	for i := range row.Len() {
		v := row.Column(i)
		if v.State() == sinks.Unchanged {
			unchanged = append(unchanged, i)
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = appendColumn(dst, &t.Columns[i], v); err != nil {
			return dst, nil, err
		}
	}
	return append(dst, '}'), unchanged, nil
}

// appendColumn appends "name":value.
func appendColumn(dst []byte, c *sinks.Column, v sinks.Value) (_ []byte, err error) {
	if dst, err = appendString(dst, c.Name); err != nil {
		return dst, err
	}
	if dst, err = appendValue(append(dst, ':'), v, &c.Type); err != nil {
		return dst, fmt.Errorf("column %s: %w", c.Name, err)
	}
	return dst, nil
}

// appendOther appends the other key of a key change, which is JSON already.
func appendOther(dst []byte, name string, key []byte) []byte {
	if key == nil || !json.Valid(key) {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return append(dst, key...)
}
