package topics

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/internal/workload"
)

// Unavailable stands for a value that the log does not hold since it was not changed.
const Unavailable = "__debezium_unavailable_value"

// Decoder makes records for the judge. It belongs to one goroutine.
type Decoder struct {
	registry *Registry
	prefix   string
	tables   map[string]*workload.Table // by topic
}

// NewDecoder decodes the topics of a workload under a prefix with the registry's schemas.
func NewDecoder(registry *Registry, prefix string) *Decoder {
	d := &Decoder{registry: registry, prefix: prefix, tables: map[string]*workload.Table{}}
	for i := range workload.Tables {
		d.tables[prefix+".public."+workload.Tables[i].Name] = &workload.Tables[i]
	}
	d.tables[prefix+".public."+workload.Barrier.Name] = &workload.Barrier
	return d
}

// MarkOnly makes a record of the header alone.
func MarkOnly(r *kgo.Record) *judge.Record {
	out := &judge.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli()}
	var err error
	if value := header(r, "tailrace"); value == nil {
		err = errors.New("no header tailrace")
	} else {
		out.Mark, err = ParseMark(value)
	}
	if err != nil {
		out.Foreign, out.Fault = true, err.Error()
	}
	return out
}

func header(r *kgo.Record, name string) []byte {
	for _, h := range r.Headers {
		if h.Key == name {
			return h.Value
		}
	}
	return nil
}

// Decode makes a record with its content. What is wrong with the content is said in the
// record's Fault; an error means that the registry could not be asked.
func (d *Decoder) Decode(ctx context.Context, r *kgo.Record) (*judge.Record, error) {
	out := MarkOnly(r)
	if out.Foreign {
		return out, nil
	}
	var err error
	switch table := d.tables[r.Topic]; {
	case out.Mark.IsEnd:
		err = d.end(ctx, out, r)
	case table == nil:
		out.Fault = "a topic of no table"
	default:
		err = d.row(ctx, out, r, table)
	}
	var bad *contentError
	if errors.As(err, &bad) {
		out.Fault, err = bad.Error(), nil
	}
	return out, err
}

// contentError says what is wrong with a record; other errors are the environment's.
type contentError struct{ text string }

func (e *contentError) Error() string { return e.text }

func badf(format string, args ...any) error {
	return &contentError{fmt.Sprintf(format, args...)}
}

// row decodes a row's change.
func (d *Decoder) row(ctx context.Context, out *judge.Record, r *kgo.Record, table *workload.Table) error {
	if err := d.key(ctx, out, r, table); err != nil {
		return err
	}
	if r.Value == nil {
		out.Op = judge.Tombstone
		return nil
	}
	v, err := d.registry.Decode(ctx, r.Value)
	if err != nil {
		return fmt.Errorf("decode %s/%d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	envelope, ok := v.(map[string]any)
	if !ok {
		return badf("the value is no record")
	}
	op, _ := envelope["op"].(string)
	if len(op) != 1 {
		return badf("operation %q", op)
	}
	out.Op = op[0]
	source, _ := envelope["source"].(map[string]any)
	xid, _ := branch(source["txId"]).(int64)
	out.XID = uint64(xid)
	if out.Op == judge.Delete {
		if branch(envelope["after"]) != nil {
			return badf("a delete with a row after it")
		}
		return nil
	}
	after, _ := branch(envelope["after"]).(map[string]any)
	if after == nil {
		return badf("no row after the change")
	}
	return d.columns(out, r, table, after)
}

// key decodes the key to its text.
func (d *Decoder) key(ctx context.Context, out *judge.Record, r *kgo.Record, table *workload.Table) error {
	if len(table.Key) == 0 {
		if r.Key != nil {
			return badf("a key where the table has none")
		}
		return nil
	}
	v, err := d.registry.Decode(ctx, r.Key)
	if err != nil {
		return fmt.Errorf("decode the key of %s/%d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	key, _ := v.(map[string]any)
	out.Key = keyText(table, key)
	return nil
}

func keyText(table *workload.Table, row map[string]any) string {
	values := make([]any, len(table.Key))
	for i, c := range table.Key {
		values[i] = row[c.Name]
	}
	return workload.KeyText(values)
}

// columns checks the row after the change against what its writer must have written.
func (d *Decoder) columns(out *judge.Record, r *kgo.Record, table *workload.Table, after map[string]any) error {
	out.Ver, _ = after["ver"].(int64)
	out.Content = workload.Content(after["writer"], after["wseq"], after["ver"], after["body"])
	if table == &workload.Barrier {
		return nil
	}
	if key := keyText(table, after); key != out.Key {
		return badf("the key says %q, the row %q", out.Key, key)
	}
	if body, _ := after["body"].(string); body != workload.Body(table.Name, out.Key, out.Ver) {
		return badf("body is %q in version %d of %q", body, out.Ver, out.Key)
	}
	if !table.Note {
		return nil
	}
	note, _ := branch(after["note"]).(string)
	if out.Note = workload.NoteSum(note); note == Unavailable {
		out.Note = judge.NoteUnavailable
	}
	if out.Op == judge.Read { // its content is compared with the database's at the end
		if len(note) != workload.NoteSize {
			return badf("note of %d bytes in a row of %q that was read", len(note), out.Key)
		}
		return nil
	}
	fresh := out.Op == judge.Create && header(r, "__debezium.oldkey") == nil
	if fresh && note != workload.Note(out.Key, out.Ver) || !fresh && note != Unavailable {
		return badf("note of %d bytes in a %q of %q", len(note), out.Op, out.Key)
	}
	return nil
}

// branch is what a union holds: goavro wraps it into a map with the branch's name.
func branch(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, inner := range m {
			return inner
		}
	}
	return v
}

// end decodes an END record: id `xid:lsn`, counts in all and by collection.
func (d *Decoder) end(ctx context.Context, out *judge.Record, r *kgo.Record) error {
	v, err := d.registry.Decode(ctx, r.Value)
	if err != nil {
		return fmt.Errorf("decode END at offset %d: %w", r.Offset, err)
	}
	value, _ := v.(map[string]any)
	if status, _ := value["status"].(string); status != "END" {
		return badf("status %q in an END record", status)
	}
	id, _ := value["id"].(string)
	d.counts(out, value)
	if out.Mark.Backfill {
		return chunk(out, id)
	}
	xid, _, _ := strings.Cut(id, ":")
	if out.XID, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return badf("transaction id %q", id)
	}
	return nil
}

// chunk takes the id of a chunk's END record apart: `backfill:id:place:row`.
func chunk(out *judge.Record, text string) (err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 4 || parts[0] != "backfill" {
		return badf("chunk id %q", text)
	}
	out.Backfill = parts[1]
	if out.From, err = strconv.ParseUint(parts[3], 10, 64); err != nil {
		return badf("chunk id %q", text)
	}
	return nil
}

// counts takes the counts of an END record.
func (d *Decoder) counts(out *judge.Record, value map[string]any) {
	out.Counts.Events, _ = branch(value["event_count"]).(int64)
	out.Counts.Collections = map[string]int64{}
	list, _ := branch(value["data_collections"]).([]any)
	for _, item := range list {
		c, _ := branch(item).(map[string]any)
		name, _ := c["data_collection"].(string)
		count, _ := c["event_count"].(int64)
		out.Counts.Collections[d.prefix+"."+name] = count
	}
}
