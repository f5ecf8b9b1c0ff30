package capture

import "github.com/prometheus/client_golang/prometheus"

// backfillCollector shows the backfills of a Monitor: each as long as it has not ended, or
// has failed. One that is done or cancelled is gone with the next scrape.
type backfillCollector struct {
	monitor     *Monitor
	rows, state *prometheus.Desc
}

func newBackfillCollector(capture string, m *Monitor) *backfillCollector {
	labels := prometheus.Labels{"capture": capture}
	return &backfillCollector{
		monitor: m,
		rows: prometheus.NewDesc("tailrace_backfill_rows",
			"Rows of a backfill: read from the table, and written to the topic, which rows that changed meanwhile are not.",
			[]string{"table", "backfill", "state"}, labels),
		state: prometheus.NewDesc("tailrace_backfill_state", "1 for the state that the backfill is in.",
			[]string{"table", "backfill", "state"}, labels),
	}
}

// retentionCollector shows what is known of the log that the database keeps.
type retentionCollector struct {
	monitor         *Monitor
	bytes, headroom *prometheus.Desc
}

func newRetentionCollector(capture string, m *Monitor) *retentionCollector {
	labels := prometheus.Labels{"capture": capture}
	return &retentionCollector{
		monitor: m,
		bytes: prometheus.NewDesc("tailrace_source_retained_bytes",
			"Log that the database keeps because the capture may still need it.", nil, labels),
		headroom: prometheus.NewDesc("tailrace_source_retention_headroom_ratio",
			"How much of the bound is free from which on the database removes log that is still needed: 1 all, 0 nothing, or it has. Absent where there is no bound.", nil, labels),
	}
}

// Describe implements prometheus.Collector.
func (c *retentionCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.bytes
	ch <- c.headroom
}

// Collect implements prometheus.Collector.
func (c *retentionCollector) Collect(ch chan<- prometheus.Metric) {
	kept := c.monitor.Status().Retained
	if kept == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.GaugeValue, float64(kept.Bytes))
	if ratio, ok := kept.Headroom(); ok {
		ch <- prometheus.MustNewConstMetric(c.headroom, prometheus.GaugeValue, ratio)
	}
}

// Describe implements prometheus.Collector.
func (c *backfillCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.rows
	ch <- c.state
}

// Collect implements prometheus.Collector.
func (c *backfillCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int64, b *Backfill, state string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), b.Table(), b.ID, state)
	}
	for _, b := range c.monitor.Backfills() {
		gauge(c.rows, b.Read, &b, "read")
		gauge(c.rows, b.Rows, &b, "written")
		for _, s := range []BackfillState{BackfillWaiting, BackfillRunning, BackfillPaused, BackfillFailed} {
			is := int64(0)
			if b.State == s {
				is = 1
			}
			gauge(c.state, is, &b, string(s))
		}
	}
}
