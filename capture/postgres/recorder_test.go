package postgres

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// recorder is an Emitter that decodes what it gets, with goavro, and writes it down.
type recorder struct {
	tb   testing.TB
	mu   sync.Mutex
	news chan struct{} // something was written down

	lines    []string
	pos      capture.Position
	idles    int
	versions []*schemas.Table
	hashes   []string
	routes   []*capture.Route // by schema id - 1
	codecs   []codecs
	open     bool
	waiting  bool
	fail     error
	confirm  func(capture.Position) // called at Commit and Idle
	onChange func()
	onRaw    func(*capture.Change)

	sameRoutes bool // a version that was seen before has its route of then, as in a pipeline
	quiet      bool // lines of changes are not written
}

type codecs struct{ key, value *goavro.Codec }

func newRecorder(tb testing.TB) *recorder { return &recorder{tb: tb, news: make(chan struct{}, 1)} }

func (r *recorder) line(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
	signal(r.news)
}

func (r *recorder) enter() func() {
	r.mu.Lock()
	if r.waiting {
		r.tb.Error("called between Wait and Resume")
	}
	return r.mu.Unlock
}

func (r *recorder) Begin(tx *capture.Tx) error {
	defer r.enter()()
	if r.open {
		r.tb.Error("Begin without the Commit of the one before")
	}
	r.open = true
	r.line("begin %s pos=%d", tx.ID, tx.Pos)
	return r.fail
}

func (r *recorder) Table(ctx context.Context, v *capture.TableVersion) (*capture.Route, error) {
	if i := slices.Index(r.hashes, v.Hash); i >= 0 && r.sameRoutes {
		return r.routes[i], nil
	}
	t, err := v.Describe(ctx)
	if err != nil {
		return nil, err
	}
	d, err := schemas.Derive(t, schemas.Naming{Prefix: "srv", Connector: connector})
	if err != nil {
		return nil, err
	}
	defer r.enter()()
	var c codecs
	if c.value, err = goavro.NewCodec(withoutDefaults(d.ValueSchema)); err != nil {
		return nil, err
	}
	if d.KeySchema != "" {
		if c.key, err = goavro.NewCodec(withoutDefaults(d.KeySchema)); err != nil {
			return nil, err
		}
	}
	id := int32(len(r.routes) + 1)
	route := &capture.Route{Table: t, Topic: d.Topic, ValueID: id}
	if d.KeySchema != "" {
		route.KeyID = id
	}
	r.routes, r.codecs = append(r.routes, route), append(r.codecs, c)
	r.versions, r.hashes = append(r.versions, t), append(r.hashes, v.Hash)
	r.line("table %s.%s %s", v.Namespace, v.Name, describeColumns(t))
	return route, nil
}

// withoutDefaults takes the defaults out of a schema: they have no part in decoding, and
// goavro cannot read those of decimals in unions.
func withoutDefaults(schema string) string {
	var v any
	if err := json.Unmarshal([]byte(schema), &v); err != nil {
		return schema
	}
	dropDefaults(v)
	b, err := json.Marshal(v)
	if err != nil {
		return schema
	}
	return string(b)
}

func dropDefaults(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "default")
		for _, inner := range v {
			dropDefaults(inner)
		}
	case []any:
		for _, inner := range v {
			dropDefaults(inner)
		}
	}
}

func describeColumns(t *schemas.Table) string {
	var words []string
	for i, c := range t.Columns {
		w := fmt.Sprintf("%s:%d", c.Name, c.Type.Kind)
		if c.Nullable {
			w += "?"
		}
		if k := slices.Index(t.Key, i); k >= 0 {
			w += fmt.Sprintf("#%d", k)
		}
		if len(c.Type.Allowed) > 0 {
			w += "{" + strings.Join(c.Type.Allowed, ",") + "}"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func (r *recorder) Change(_ context.Context, c *capture.Change) error {
	defer r.enter()()
	if !r.open {
		r.tb.Error("Change outside of a transaction")
	}
	if r.onRaw != nil {
		r.onRaw(c)
	}
	if r.quiet {
		signal(r.news)
	} else {
		r.line("%s", r.show(c))
	}
	if r.onChange != nil {
		r.onChange()
	}
	return r.fail
}

// show decodes a change to one line.
func (r *recorder) show(c *capture.Change) string {
	var b strings.Builder
	op := string(c.Op)
	if c.Op == 0 {
		op = "tombstone"
	}
	fmt.Fprintf(&b, "%s %s key=%s", op, strings.TrimPrefix(c.Route.Topic, "srv."), r.decode(c.Key, true))
	if c.Value != nil {
		v := r.native(c.Value, false).(map[string]any)
		if got := unwrap(v["op"]); got != op {
			r.tb.Errorf("the envelope of a %s says %v", op, got)
		}
		fmt.Fprintf(&b, " before=%s after=%s", text(v["before"]), text(v["after"]))
		src := v["source"].(map[string]any)
		fmt.Fprintf(&b, " lsn=%s seq=%s tx=%s", text(src["lsn"]), text(src["sequence"]), text(src["txId"]))
		if src["db"] != "shop" && src["db"] == "" || src["table"] != c.Route.Table.Name || src["schema"] != c.Route.Table.Namespace {
			r.tb.Errorf("wrong source block: %v", src)
		}
	}
	if c.NewKey != nil {
		fmt.Fprintf(&b, " newkey=%s", c.NewKey)
	}
	if c.OldKey != nil {
		fmt.Fprintf(&b, " oldkey=%s", c.OldKey)
	}
	return b.String()
}

func (r *recorder) decode(framed []byte, key bool) string {
	if framed == nil {
		return "none"
	}
	return text(r.native(framed, key))
}

func (r *recorder) native(framed []byte, key bool) any {
	if len(framed) < schemas.FrameSize || framed[0] != 0 {
		r.tb.Fatalf("bad frame: %x", framed)
	}
	c := r.codecs[binary.BigEndian.Uint32(framed[1:])-1]
	codec := c.value
	if key {
		codec = c.key
	}
	v, rest, err := codec.NativeFromBinary(framed[schemas.FrameSize:])
	if err != nil || len(rest) > 0 {
		r.tb.Fatalf("decode %x: %v, %d bytes left over", framed, err, len(rest))
	}
	return v
}

func (r *recorder) Commit(_ context.Context, end capture.Position) error {
	defer r.enter()()
	if !r.open {
		r.tb.Error("Commit without a Begin")
	}
	r.open, r.pos = false, end
	r.line("commit %d", end.Offset)
	if r.confirm != nil {
		r.confirm(end)
	}
	return r.fail
}

func (r *recorder) Idle(_ context.Context, p capture.Position, asked bool) error {
	defer r.enter()()
	if r.open {
		r.tb.Error("Idle inside of a transaction")
	}
	if p.Compare(r.pos) < 0 {
		r.tb.Errorf("Idle at %d, before %d", p.Offset, r.pos.Offset)
	}
	r.pos = p
	r.idles++
	if asked {
		r.line("idle %d asked", p.Offset)
	}
	signal(r.news)
	if r.confirm != nil {
		r.confirm(p)
	}
	return r.fail
}

func (r *recorder) Wait() {
	r.mu.Lock()
	r.waiting = true
	r.mu.Unlock()
}

func (r *recorder) Resume() {
	r.mu.Lock()
	r.waiting = false
	r.mu.Unlock()
}

// unwrap takes the value out of a union as goavro has it.
func unwrap(v any) any {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return v
	}
	for name, inner := range m {
		switch name {
		case "boolean", "int", "long", "float", "double", "bytes", "string", "array", "bytes.decimal":
			return inner
		}
		if strings.Contains(name, ".") {
			return inner
		}
	}
	return v
}

// text writes a decoded value as JSON with sorted names.
func text(v any) string {
	b, err := json.Marshal(plain(v))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func plain(v any) any {
	switch v := unwrap(v).(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = plain(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case *big.Rat:
		return v.RatString()
	case []byte:
		return fmt.Sprintf("%x", v)
	case float32, float64:
		return fmt.Sprint(v)
	default:
		return v
	}
}
