package capture

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phase is what a capture is doing.
type Phase string

// The phases of a capture.
const (
	PhaseStarting Phase = "starting" // recovering
	PhaseRunning  Phase = "running"
	PhaseWaiting  Phase = "waiting" // failed, to be started again
	PhaseStopped  Phase = "stopped"
)

// Status is a snapshot of a capture, as /status and `capture status` show it.
type Status struct {
	Phase     Phase             `json:"phase"`
	Since     time.Time         `json:"since"`
	Position  Position          `json:"position"`             // the last durable one
	Lag       float64           `json:"lag_seconds"`          // age of the last durable commit; 0 when caught up
	LastEvent *time.Time        `json:"last_event,omitempty"` // commit time of the last durable change
	Events    map[string]uint64 `json:"events"`               // changes written since the process began, by op
	Retained  *Retained         `json:"retained,omitempty"`   // log that the database keeps; nil: not known
}

// Retained is how much log the database keeps because the capture has not read it for good.
type Retained struct {
	Bytes int64 `json:"bytes"`
	Bound int64 `json:"bound,omitempty"` // from which on it removes log that is still needed; 0: never
	Lost  bool  `json:"lost,omitempty"`  // it has done so
}

// Headroom returns how much of the bound is free: 1 all, 0 nothing. ok is false without a bound.
func (r *Retained) Headroom() (ratio float64, ok bool) {
	switch {
	case r.Lost:
		return 0, true
	case r.Bound == 0:
		return 0, false
	}
	return max(0, 1-float64(r.Bytes)/float64(r.Bound)), true
}

// Monitor collects what a capture does, over all its runs. Its methods may be called from
// any goroutine.
type Monitor struct {
	mu    sync.Mutex
	state Phase
	since time.Time
	pos   Position
	fills map[string]Backfill // by id
	kept  *Retained

	events        [256]atomic.Uint64
	schemaChanges atomic.Uint64
	lastCommit    atomic.Int64 // microseconds; 0: none
	idleAt        atomic.Int64 // microseconds: when nothing was outstanding
	heard         atomic.Int64 // milliseconds: when the log was last heard of
}

// ops are the operations that are counted, by the names of the metric's label.
var ops = map[byte]string{'c': "create", 'u': "update", 'd': "delete", 'r': "read", 't': "truncate"}

// NewMonitor makes a monitor and registers its metrics, labelled with the capture's name.
// reg may be nil.
func NewMonitor(name string, reg prometheus.Registerer) *Monitor {
	m := &Monitor{state: PhaseStarting, since: time.Now(), fills: make(map[string]Backfill)}
	if reg == nil {
		return m
	}
	labels := prometheus.Labels{"capture": name}
	for op, label := range ops {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tailrace_capture_events_total", Help: "Changes written to topics.",
			ConstLabels: prometheus.Labels{"capture": name, "op": label},
		}, func() float64 { return float64(m.events[op].Load()) }))
	}
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tailrace_schema_changes_total", Help: "Table versions met for the first time.", ConstLabels: labels,
		}, func() float64 { return float64(m.schemaChanges.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_capture_lag_seconds", Help: "Age of the last durable commit; 0 when the log is read to its end.", ConstLabels: labels,
		}, func() float64 { return m.lag(time.Now()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_capture_last_event_timestamp_seconds", Help: "Commit time of the last durable change.", ConstLabels: labels,
		}, func() float64 { return float64(m.lastCommit.Load()) / 1e6 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_heartbeat_age_seconds", Help: "Time since the database last said anything of its log, be it that there is nothing new; 0 before it has.", ConstLabels: labels,
		}, func() float64 { return m.silence(time.Now()) }),
		newRetentionCollector(name, m),
	)
	for _, ph := range []Phase{PhaseStarting, PhaseRunning, PhaseWaiting, PhaseStopped} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_pipeline_health", Help: "1 for the status that the pipeline is in.",
			ConstLabels: prometheus.Labels{"capture": name, "status": string(ph)},
		}, func() float64 {
			if m.Status().Phase == ph {
				return 1
			}
			return 0
		}))
	}
	reg.MustRegister(newBackfillCollector(name, m))
	return m
}

// SetPhase notes what the capture is doing; the supervisor calls it between runs.
func (m *Monitor) SetPhase(p Phase) { m.phase(p) }

func (m *Monitor) phase(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != p {
		m.state, m.since = p, time.Now()
	}
}

func (m *Monitor) count(op byte) { m.events[op].Add(1) }

// backfill notes where a backfill stands.
func (m *Monitor) backfill(b *Backfill) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fills[b.ID] = *b; b.State == BackfillDone || b.State == BackfillCancelled {
		delete(m.fills, b.ID)
	}
}

// Backfills returns the backfills that have not ended, or have failed, in the order of
// their requests.
func (m *Monitor) Backfills() []Backfill {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Backfill
	for _, b := range m.fills {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b Backfill) int {
		return cmp.Or(a.Requested.Compare(b.Requested), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// SetRetained notes how much log the database keeps; nil: it is not known.
func (m *Monitor) SetRetained(r *Retained) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = r
}

// hear notes that the log was heard of, in milliseconds.
func (m *Monitor) hear(now int64) { m.heard.Store(now) }

// silence returns the seconds since the log was heard of.
func (m *Monitor) silence(now time.Time) float64 {
	at := m.heard.Load()
	if at == 0 {
		return 0
	}
	return max(0, float64(now.UnixMilli()-at)/1e3)
}

func (m *Monitor) schemaChange() { m.schemaChanges.Add(1) }

// caughtUp notes that the log is read to its end and everything is written.
func (m *Monitor) caughtUp() { m.idleAt.Store(time.Now().UnixMicro()) }

func (m *Monitor) durable(g *group) {
	m.mu.Lock()
	m.pos = g.cut.position.Position
	m.mu.Unlock()
	if g.commitTime != 0 {
		m.lastCommit.Store(g.commitTime)
	}
}

// lag returns the age in seconds of what is durable: 0 within a second of having been
// caught up, and before anything was read.
func (m *Monitor) lag(now time.Time) float64 {
	at := max(m.lastCommit.Load(), m.idleAt.Load())
	age := float64(now.UnixMicro()-at) / 1e6
	if at == 0 || age < 1 && m.idleAt.Load() >= m.lastCommit.Load() {
		return 0
	}
	return max(age, 0)
}

// Status returns a snapshot.
func (m *Monitor) Status() Status {
	now := time.Now()
	m.mu.Lock()
	s := Status{Phase: m.state, Since: m.since, Position: m.pos, Retained: m.kept}
	m.mu.Unlock()
	s.Lag = m.lag(now)
	if t := m.lastCommit.Load(); t != 0 {
		at := time.UnixMicro(t).UTC()
		s.LastEvent = &at
	}
	s.Events = make(map[string]uint64, len(ops))
	for op, label := range ops {
		s.Events[label] = m.events[op].Load()
	}
	return s
}
