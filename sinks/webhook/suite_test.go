package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// receiver is an application that keeps tables by the events that it gets: it knows an event
// that comes again by its id, lays an update over the row, and keeps a deleted row gone.
type receiver struct {
	mu     sync.Mutex
	met    map[string]bool
	tables map[string]*receivedTable
	refuse bool // rows of items with sinktest.Poison
	failed error
}

type receivedTable struct {
	columns []string // in the order in which they were met
	rows    map[string]map[string]json.RawMessage
}

func newReceiver() *receiver {
	return &receiver{met: make(map[string]bool), tables: make(map[string]*receivedTable)}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender has gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse && bytes.Contains(body, fmt.Appendf(nil, `"v":%d`, sinktest.Poison)) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	if id := req.Header.Get("ce-id"); id == req.Header.Get("webhook-id") && !r.met[id] {
		r.met[id] = true
		if err := r.take(body); err != nil {
			r.failed = fmt.Errorf("%s: %w", body, err)
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func (r *receiver) take(body []byte) error {
	var e struct {
		Op, Table          string
		Key, Before, After json.RawMessage
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	t := r.tables[e.Table]
	if t == nil {
		t = &receivedTable{}
		r.tables[e.Table] = t
	}
	if t.rows == nil || e.Op == "t" {
		t.rows = make(map[string]map[string]json.RawMessage)
	}
	switch row := t.rows[string(e.Key)]; {
	case e.Op == "t":
	case e.Op == "d":
		delete(t.rows, string(e.Key))
	default:
		if row == nil || e.Op != "u" {
			row = make(map[string]json.RawMessage)
		}
		t.rows[string(e.Key)] = row
		return t.lay(e.After, row)
	}
	return nil
}

// lay lays the columns of after over a row.
func (t *receivedTable) lay(after json.RawMessage, row map[string]json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(after))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if row[name.(string)] = value; !slices.Contains(t.columns, name.(string)) {
			t.columns = append(t.columns, name.(string))
		}
	}
	return nil
}

// read returns a table as sinktest wants it.
func (r *receiver) read(tb testing.TB, table string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		tb.Fatal(r.failed)
	}
	var out []string
	if t := r.tables[table]; t != nil {
		for _, row := range t.rows {
			var line []string
			for _, name := range t.columns {
				line = append(line, textOf(row[name]))
			}
			out = append(out, strings.Join(line, "|"))
		}
	}
	slices.Sort(out)
	return out
}

func textOf(value json.RawMessage) string {
	if value == nil || string(value) == "null" {
		return `\N`
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return string(value)
	}
	return text
}

func TestConformance(t *testing.T) {
	var last *receiver
	sinktest.Run(t, sinktest.Target{
		ByKey:  true,
		Source: source,
		Refuse: func(_ testing.TB, refuse bool) {
			last.mu.Lock()
			defer last.mu.Unlock()
			last.refuse = refuse
		},
		New: func(tb testing.TB, from subscribe.Config) (func(string) (sinks.Sink, error), func(testing.TB, string) []string) {
			r := newReceiver()
			last = r
			server := httptest.NewServer(r)
			tb.Cleanup(server.Close)
			return func(name string) (sinks.Sink, error) {
				return New(Config{Name: name, URL: server.URL, Allow: []string{"127.0.0.1/32"}, Positions: sinks.NewPositions(from.Client, name)})
			}, r.read
		},
	})
}
