package httpapi

import (
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/sinks"
)

// Status is the answer of /status.
type Status struct {
	Version  string         `json:"version"`
	Started  time.Time      `json:"started"`
	Ready    bool           `json:"ready"`
	Causes   []string       `json:"causes,omitempty"` // why it is not ready
	Broker   BrokerStatus   `json:"broker"`
	Registry RegistryStatus `json:"registry"`
	Captures []Capture      `json:"captures"`
	Sinks    []Sink         `json:"sinks,omitempty"`
}

// BrokerStatus says where topics live.
type BrokerStatus struct {
	Kind    string `json:"kind"`          // embedded or kafka
	Address string `json:"address"`       // host:port, several with commas
	Low     bool   `json:"low,omitempty"` // embedded: less free space than the floor, producing waits
}

// RegistryStatus says where schemas live.
type RegistryStatus struct {
	Kind  string   `json:"kind"` // served or external
	URL   string   `json:"url"`
	State State    `json:"state,omitempty"` // of our own server
	Error *Problem `json:"error,omitempty"`
}

// State is what a supervised part does.
type State string

// The states of a part.
const (
	Starting State = "starting" // recovering; nothing is written yet
	Running  State = "running"  // reading and writing
	Waiting  State = "waiting"  // failed, and will be started again at RetryAt
	Standby  State = "standby"  // a sink: another process does the work, this one takes over when it ends
	Stopped  State = "stopped"  // by a fatal error, by another process, or because the process ends
)

// Capture is one capture's part of the status.
type Capture struct {
	Name     string     `json:"name"`
	Prefix   string     `json:"prefix"`
	State    State      `json:"state"`
	Since    time.Time  `json:"since"`    // when State began
	Restarts int        `json:"restarts"` // runs after the first
	RetryAt  *time.Time `json:"retry_at,omitempty"`
	Position string     `json:"position,omitempty"` // read up to, as the database writes it

	Lag       float64           `json:"lag_seconds"`
	LastEvent *time.Time        `json:"last_event,omitempty"` // commit time of the last change written
	Events    map[string]uint64 `json:"events"`               // changes written since the process began, by operation
	Error     *Problem          `json:"error,omitempty"`      // the last one; stays until a run is healthy again

	Retained *capture.Retained `json:"retained,omitempty"` // log that the database keeps

	Backfills []capture.Backfill `json:"backfills,omitempty"` // those that have not ended, or have failed
}

// Sink is one sink's part of the status.
type Sink struct {
	Name     string     `json:"name"`
	From     string     `json:"from"` // prefix of the topics that it reads
	State    State      `json:"state"`
	Since    time.Time  `json:"since"`
	Restarts int        `json:"restarts"`
	RetryAt  *time.Time `json:"retry_at,omitempty"`

	Lag          float64           `json:"lag_seconds"`          // of the last applied change, from its commit until it was durable in the target
	LastEvent    *time.Time        `json:"last_event,omitempty"` // commit time of the last applied change
	Events       map[string]uint64 `json:"events"`               // changes applied since the process began, by operation
	Transactions uint64            `json:"transactions"`         // whole source transactions applied since

	DeadLetters *sinks.ParkedStatus `json:"dead_letters,omitempty"` // of the partitions that this process owns
	Error       *Problem            `json:"error,omitempty"`
}

// Problem is an error as a person should see it.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Fatal   bool   `json:"fatal"` // it will not be tried again
}
