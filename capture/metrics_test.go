package capture

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A backfill is shown until it is done or cancelled; one that has failed, next to another of
// its table.
func TestBackfillMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMonitor("shop", reg)
	show := func(b Backfill) { m.backfill(&b) }
	show(Backfill{ID: "1", Namespace: "public", Name: "orders", State: BackfillFailed, Read: 7, Rows: 5})
	show(Backfill{ID: "2", Namespace: "public", Name: "orders", State: BackfillRunning, Read: 30, Rows: 20})
	show(Backfill{ID: "3", Namespace: "public", Name: "parts", State: BackfillRunning, Read: 1})
	show(Backfill{ID: "3", Namespace: "public", Name: "parts", State: BackfillDone, Read: 2})
	show(Backfill{ID: "4", Namespace: "public", Name: "tills", State: BackfillPaused})
	show(Backfill{ID: "4", Namespace: "public", Name: "tills", State: BackfillCancelled})
	want := []string{
		"rows 1 read public.orders 7", "rows 1 written public.orders 5", "rows 2 read public.orders 30", "rows 2 written public.orders 20",
		"state 1 failed public.orders 1", "state 1 paused public.orders 0", "state 1 running public.orders 0", "state 1 waiting public.orders 0",
		"state 2 failed public.orders 0", "state 2 paused public.orders 0", "state 2 running public.orders 1", "state 2 waiting public.orders 0",
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		name, ours := strings.CutPrefix(f.GetName(), "tailrace_backfill_")
		for _, one := range f.GetMetric() {
			l := one.GetLabel() // in the order of their names: backfill, capture, state, table
			if ours {
				got = append(got, fmt.Sprint(name, " ", l[0].GetValue(), " ", l[2].GetValue(), " ", l[3].GetValue(), " ", one.GetGauge().GetValue()))
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
