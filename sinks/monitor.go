package sinks

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phase is what a sink is doing.
type Phase string

// The phases of a sink.
const (
	PhaseStarting Phase = "starting" // joining the group, taking the partitions
	PhaseStandby  Phase = "standby"  // another member has the partitions
	PhaseRunning  Phase = "running"
	PhaseWaiting  Phase = "waiting" // failed, to be started again
	PhaseStopped  Phase = "stopped"
)

// Status is a snapshot of a sink, as /status shows it.
type Status struct {
	Phase        Phase             `json:"phase"`
	Since        time.Time         `json:"since"`
	Lag          float64           `json:"lag_seconds"`          // from the last applied change's commit until it was durable here
	LastEvent    *time.Time        `json:"last_event,omitempty"` // commit time of the last applied change
	Events       map[string]uint64 `json:"events"`               // changes applied since the process began, by op
	Transactions uint64            `json:"transactions"`         // source transactions applied; mode Keys: 0
	Batches      uint64            `json:"batches"`
	DeadLetters  ParkedStatus      `json:"dead_letters"`
}

// ParkedStatus is what is parked of the partitions that this member owns.
type ParkedStatus struct {
	Letters int        `json:"letters"`
	Keys    int        `json:"keys"`
	Oldest  *time.Time `json:"oldest,omitempty"`
}

// Monitor collects what a sink does, over all its runs. Its methods may be called from
// any goroutine.
type Monitor struct {
	mu        sync.Mutex
	status    Status
	latencies []time.Duration // a ring once it is full
	next      int
	applied   prometheus.Histogram
	latency   prometheus.Histogram
	letters   *prometheus.CounterVec
}

// ops are the operations that are counted, by the names of the metric's label.
var ops = map[byte]string{OpCreate: "create", OpUpdate: "update", OpDelete: "delete", OpRead: "read", OpTruncate: "truncate"}

// letterEvents are what can become of a dead letter, by the names of the metric's label.
var letterEvents = []string{LetterRefused, LetterWaiting, "refused_again", "applied", "dropped"}

// letter counts dead letters.
func (m *Monitor) letter(event string, n int) { m.letters.WithLabelValues(event).Add(float64(n)) }

// parked notes what is parked.
func (m *Monitor) parked(letters, keys int, oldest time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.DeadLetters = ParkedStatus{Letters: letters, Keys: keys}
	if !oldest.IsZero() {
		m.status.DeadLetters.Oldest = &oldest
	}
}

// keptLatencies is how many batches' latencies a Monitor remembers.
const keptLatencies = 4096

// NewMonitor makes a monitor and registers its metrics, labelled with the sink's name.
// reg may be nil.
func NewMonitor(name string, reg prometheus.Registerer) *Monitor {
	labels := prometheus.Labels{"sink": name}
	m := &Monitor{
		status: Status{Phase: PhaseStarting, Since: time.Now(), Events: map[string]uint64{}},
		applied: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tailrace_sink_apply_seconds", Help: "Time that the target took for a batch.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tailrace_e2e_latency_seconds", Help: "From the commit of a batch's first change in the source until the batch was durable in the target.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20),
		}),
		letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tailrace_dlq_records_total", Help: "Dead letters, by what became of them: refused, waiting behind a refused one, refused_again, applied, dropped.", ConstLabels: labels,
		}, []string{"event"}),
	}
	for _, event := range letterEvents {
		m.letters.WithLabelValues(event)
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.applied, m.latency, m.letters, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tailrace_sink_lag_seconds", Help: "From the last applied change's commit in the source until it was durable in the target.", ConstLabels: labels,
	}, func() float64 { return m.Status().Lag }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tailrace_dlq_parked_records", Help: "Dead letters that are parked now.", ConstLabels: labels,
	}, func() float64 { return float64(m.Status().DeadLetters.Letters) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tailrace_dlq_parked_keys", Help: "Keys that wait behind a dead letter now.", ConstLabels: labels,
	}, func() float64 { return float64(m.Status().DeadLetters.Keys) }))
	for _, op := range ops {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tailrace_sink_events_total", Help: "Changes applied to the target.",
			ConstLabels: prometheus.Labels{"sink": name, "op": op},
		}, func() float64 { return float64(m.Status().Events[op]) }))
	}
	for _, ph := range []Phase{PhaseStarting, PhaseStandby, PhaseRunning, PhaseWaiting, PhaseStopped} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_sink_health", Help: "1 for the status that the sink is in.",
			ConstLabels: prometheus.Labels{"sink": name, "status": string(ph)},
		}, func() float64 {
			if m.Status().Phase == ph {
				return 1
			}
			return 0
		}))
	}
	return m
}

// Status returns what the sink is doing.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Events = maps.Clone(s.Events)
	return s
}

// SetPhase says what the sink is doing; between runs its supervisor knows.
func (m *Monitor) SetPhase(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status.Phase != p {
		m.status.Phase, m.status.Since = p, time.Now()
	}
}

// Latencies returns, for the last batches in no particular order, the time from the commit
// of a batch's first change in the source until the batch was durable in the target.
func (m *Monitor) Latencies() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.latencies)
}

// tally is what one applied batch adds.
type tally struct {
	ops            [256]uint64
	transactions   int
	oldest, last   time.Time // commit times; zero: not known
	began, durable time.Time
}

func (m *Monitor) add(t *tally) {
	m.applied.Observe(t.durable.Sub(t.began).Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.status
	s.Batches++
	s.Transactions += uint64(t.transactions)
	for op, name := range ops {
		if n := t.ops[op]; n > 0 {
			s.Events[name] += n
		}
	}
	if t.last.IsZero() {
		return
	}
	s.LastEvent, s.Lag = &t.last, max(0, t.durable.Sub(t.last).Seconds())
	latency := max(0, t.durable.Sub(t.oldest))
	if !t.oldest.IsZero() {
		m.latency.Observe(latency.Seconds())
	}
	if len(m.latencies) < keptLatencies {
		m.latencies = append(m.latencies, latency)
		return
	}
	m.latencies[m.next] = latency
	m.next = (m.next + 1) % keptLatencies
}
