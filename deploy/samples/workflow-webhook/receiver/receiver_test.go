package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The example of Standard Webhooks' specification.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleTime      = 1614265330
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestVerify(t *testing.T) {
	key, err := parseSecret(exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		id, at, signature, body string
		after                   time.Duration
		want                    error
	}{
		"the example":         {exampleID, fmt.Sprint(exampleTime), exampleSignature, exampleBody, 0, nil},
		"one of several":      {exampleID, fmt.Sprint(exampleTime), "v1,AAAA v2,x " + exampleSignature, exampleBody, time.Minute, nil},
		"another body":        {exampleID, fmt.Sprint(exampleTime), exampleSignature, exampleBody + " ", 0, errSignature},
		"another id":          {exampleID + "x", fmt.Sprint(exampleTime), exampleSignature, exampleBody, 0, errSignature},
		"another time":        {exampleID, fmt.Sprint(exampleTime + 1), exampleSignature, exampleBody, 0, errSignature},
		"another version":     {exampleID, fmt.Sprint(exampleTime), "v1a" + exampleSignature[2:], exampleBody, 0, errSignature},
		"sent again, later":   {exampleID, fmt.Sprint(exampleTime), exampleSignature, exampleBody, 6 * time.Minute, errTimestamp},
		"from the future":     {exampleID, fmt.Sprint(exampleTime), exampleSignature, exampleBody, -6 * time.Minute, errTimestamp},
		"no time":             {exampleID, "soon", exampleSignature, exampleBody, 0, errTimestamp},
		"nothing":             {"", "", "", exampleBody, 0, errHeaders},
		"an empty signature,": {exampleID, fmt.Sprint(exampleTime), "v1,", exampleBody, 0, errSignature},
	} {
		h := http.Header{}
		h.Set("webhook-id", c.id)
		h.Set("webhook-timestamp", c.at)
		h.Set("webhook-signature", c.signature)
		if err := verify([][]byte{make([]byte, 16), key}, h, []byte(c.body), time.Unix(exampleTime, 0).Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	for _, text := range []string{"", "whsec_", "whsec_AAAA", "whsec_no base64, though long enough", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		if _, err := parseSecret(text); err == nil {
			t.Errorf("%q is taken for a secret", text)
		}
	}
}

// standings are one line for each order.
func standings(w *workflows) string {
	var lines []string
	for _, s := range w.list() {
		lines = append(lines, fmt.Sprintf("%s %s %s", s.Order, s.State, s.Paid)+strings.Repeat("+", s.Changes))
	}
	return strings.Join(lines, ", ")
}

// Whatever order changes of different rows come in, the end is the same.
func TestWorkflowsDoNotRelyOnOrder(t *testing.T) {
	rows := [][]change{ // each row's own changes stay in their order
		{{Op: "c", Table: "orders", Key: key{OrderNo: "A"}, After: &row{OrderNo: "A", Status: 1, Total: "10.00"}},
			{Op: "d", Table: "orders", Key: key{OrderNo: "A"}, NewKey: &key{OrderNo: "B"}}},
		{{Op: "c", Table: "orders", Key: key{OrderNo: "B"}, OldKey: &key{OrderNo: "A"}, After: &row{OrderNo: "B", Status: 1, Total: "10.00"}},
			{Op: "u", Table: "orders", Key: key{OrderNo: "B"}, After: &row{OrderNo: "B", Status: 1, Total: "12.00"}}},
		{{Op: "c", Table: "payment", Key: key{ID: 1}, After: &row{OrderNo: "A", Amount: "7.50"}},
			{Op: "u", Table: "payment", Key: key{ID: 1}, After: &row{OrderNo: "B", Amount: "7.50"}}},
		{{Op: "c", Table: "payment", Key: key{ID: 2}, After: &row{OrderNo: "B", Amount: "4.49"}}},
		{{Op: "c", Table: "payment", Key: key{ID: 3}, After: &row{OrderNo: "B", Amount: "9"}}, {Op: "d", Table: "payment", Key: key{ID: 3}}},
	}
	ends, runs := map[string]bool{}, 0
	var walk func(done []change, next []int)
	walk = func(done []change, next []int) {
		last := true
		for i := range rows {
			if next[i] < len(rows[i]) {
				last = false
				after := slices.Clone(next)
				after[i]++
				walk(append(slices.Clone(done), rows[i][next[i]]), after)
			}
		}
		if last {
			w := newWorkflows()
			for _, c := range done {
				w.apply(c)
			}
			ends[standings(w)], runs = true, runs+1
		}
	}
	walk(nil, make([]int, len(rows)))
	if runs != 22680 || len(ends) != 1 || !ends["B awaiting payment 11.99+++"] {
		t.Errorf("%d orders of changes end in %v", runs, ends)
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		status           int
		total, paid, end string
	}{
		{1, "10.00", "9.99", "A awaiting payment 9.99+"}, {1, "10.00", "10", "A picking 10.00+"}, {1, "0.00", "0", "A picking 0.00+"},
		{3, "10", "0", "A in transit 0.00+"}, {4, "10", "10", "A done 10.00+"}, {9, "10", "10", "A refunding 10.00+"}, {9, "10", "0", "A closed 0.00+"},
	} {
		w := newWorkflows()
		w.apply(change{Op: "c", Table: "orders", Key: key{OrderNo: "A"}, After: &row{Status: c.status, Total: c.total}})
		w.apply(change{Op: "c", Table: "payment", Key: key{ID: 1}, After: &row{OrderNo: "A", Amount: c.paid}})
		if got := standings(w); got != c.end {
			t.Errorf("%+v: %s", c, got)
		}
	}
	w := newWorkflows()
	w.apply(change{Op: "c", Table: "payment", Key: key{ID: 1}, After: &row{OrderNo: "Z", Amount: "1"}})
	if got := standings(w); got != "Z awaiting order 1.00" {
		t.Error(got)
	}
	w.apply(change{Op: "t", Table: "payment"})
	w.apply(change{Op: "c", Table: "orders", Key: key{OrderNo: "A"}, After: &row{}})
	w.apply(change{Op: "t", Table: "orders"})
	if got := standings(w); got != "" {
		t.Error(got)
	}
}

// A change counts once, also over a crash that cut off the last line; what was cut off was
// not acknowledged, and comes again.
func TestJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	open := func() (*journal, *[]string) {
		t.Helper()
		applied := new([]string)
		j, err := openJournal(name, func(c change) { *applied = append(*applied, c.Key.OrderNo) })
		if err != nil {
			t.Fatal(err)
		}
		return j, applied
	}
	put := func(j *journal, applied *[]string, id string) {
		t.Helper()
		if err := j.once(id, change{Key: key{OrderNo: id}}, func(c change) { *applied = append(*applied, c.Key.OrderNo) }); err != nil {
			t.Fatal(err)
		}
	}
	j, applied := open()
	for _, id := range []string{"1", "2", "1", "3", "3"} {
		put(j, applied, id)
	}
	if got := strings.Join(*applied, " "); got != "1 2 3" {
		t.Errorf("applied %s", got)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text[:len(text)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	j, applied = open()
	put(j, applied, "2")
	put(j, applied, "3")
	if got := strings.Join(*applied, " "); got != "1 2 3" {
		t.Errorf("after the crash %s", got)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if err := j.once("4", change{}, func(change) { t.Error("applied what is not on the disk") }); err == nil {
		t.Error("a journal that cannot be written says nothing")
	}
	j, applied = open()
	if got := strings.Join(*applied, " "); got != "1 2 3" {
		t.Errorf("in the end %s", got)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
}

// What is not signed, or no change, is refused and leaves no trace.
func TestReceiverRefuses(t *testing.T) {
	key, err := parseSecret(exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{secrets: [][]byte{key}, now: func() time.Time { return time.Unix(exampleTime, 0) }, flow: newWorkflows()}
	if r.journal, err = openJournal(filepath.Join(t.TempDir(), "journal"), r.flow.apply); err != nil {
		t.Fatal(err)
	}
	for signature, want := range map[string]int{"v1,AAAA": http.StatusUnauthorized, exampleSignature: http.StatusBadRequest} {
		req := httptest.NewRequest(http.MethodPost, "/changes/orders", strings.NewReader(exampleBody))
		req.Header.Set("webhook-id", exampleID)
		req.Header.Set("webhook-timestamp", fmt.Sprint(exampleTime))
		req.Header.Set("webhook-signature", signature)
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, req)
		if w.Code != want {
			t.Errorf("%s: %d", signature, w.Code)
		}
	}
	if len(r.journal.seen) > 0 || len(r.flow.list()) > 0 {
		t.Error("it left a trace")
	}
	if err := r.journal.close(); err != nil {
		t.Fatal(err)
	}
}
