package capture

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// PartitionID names one partition of one topic.
type PartitionID struct {
	Topic  string
	Number int32
}

func (id PartitionID) String() string { return id.Topic + "/" + strconv.Itoa(int(id.Number)) }

func (id PartitionID) compare(o PartitionID) int {
	if c := strings.Compare(id.Topic, o.Topic); c != 0 {
		return c
	}
	return int(id.Number) - int(o.Number)
}

// positionState is the record position/0 or position/1: how far the capture was when it
// was written. The two are used in turn, so that the one before the newest survives.
type positionState struct {
	G        uint64   `json:"g"` // rises by one with each cut
	Epoch    uint64   `json:"epoch"`
	Identity string   `json:"identity"`
	Timeline uint32   `json:"timeline,omitempty"` // of the log when it was written; 0: not known
	Position Position `json:"position"`
	Order    order    `json:"order"` // the last commit with records of ours at or before Position
	Snapshot string   `json:"snapshot"`
}

// order is a commit's place in the log; see stream.Place.
type order struct {
	File uint64 `json:"file,omitempty"`
	Pos  uint64 `json:"pos"`
}

// partitionState is the record partition/<topic>/<number>: the last record that was
// written there, now and before the cut g.
type partitionState struct {
	G           uint64       `json:"g"`
	N           uint64       `json:"n"`
	Place       stream.Place `json:"place"`
	Before      uint64       `json:"before"` // n and place before g
	BeforePlace stream.Place `json:"before_place"`
	Offset      int64        `json:"offset"`                // of the last acknowledged record; -1: none
	Read        bool         `json:"read,omitempty"`        // the record at Place is of a backfill,
	BeforeRead  bool         `json:"before_read,omitempty"` // and that at BeforePlace
	// Past is where the records of somebody else end that a person has borne with; 0: there are
	// none.
	Past int64 `json:"past,omitempty"`
}

// at returns how many records a start at the position of cut g must find, at least.
func (p *partitionState) at(g uint64) uint64 {
	if p.G > g {
		return p.Before
	}
	return p.N
}

// tableState is one entry of the record table/<name>/<hash>: what a table version was
// written as, from a place in the log on.
type tableState struct {
	From    stream.Place   `json:"from"`
	Table   *schemas.Table `json:"table"`
	KeyID   int32          `json:"key_id,omitempty"`
	ValueID int32          `json:"value_id"`
	Log     string         `json:"log,omitempty"`  // TableVersion.Log
	Keys    string         `json:"keys,omitempty"` // TableVersion.Keys
}

// routingState is the record routing: the topics that the capture writes to.
type routingState struct {
	Topics map[string]topicState `json:"topics"`
}

// topicState is one topic's routing. The number of partitions stays as it was at the
// first record, however many the topic is given later, or keys would move.
type topicState struct {
	From       stream.Place `json:"from"`
	Partitions int32        `json:"partitions"`
	Collection string       `json:"collection,omitempty"` // the table, `schema.table`; none for END records
	// Of is the topic whose changes are copied here from the place From, up to Until. That
	// is for the rows of a backfill that are addressed to this topic.
	Of    string        `json:"of,omitempty"`
	Until *stream.Place `json:"until,omitempty"`
}

// state is the whole state topic.
type state struct {
	positions  [2]*positionState
	partitions map[PartitionID]partitionState
	tables     map[string][]tableState // by tableKey
	routing    routingState
	taken      takenState // nil: a run of an older version, or none, wrote the state
	backfills  map[string]*Backfill
	chunks     map[string]map[int]rangeState // by backfill and range
	control    controlState
	accepted   acceptances
}

// rangeState is the record chunk/<backfill>/<range>: how far a range is written, and how far
// it was before the cut g.
type rangeState struct {
	G uint64 `json:"g"`
	backfill.Progress
	Before backfill.Progress `json:"before"`
}

// at returns what is true for a start at the position of cut g.
func (r *rangeState) at(g uint64) backfill.Progress {
	if r.G > g {
		return r.Before
	}
	return r.Progress
}

// back is what is true from cut g on if what was written last does not count.
func (r *rangeState) back(g uint64) rangeState {
	return rangeState{G: g, Progress: r.Before, Before: r.Before}
}

// takenState is the record tables: whose rows from before are taken care of, and which
// table that was, as the source identifies it.
type takenState map[string]string

// controlState is the record control: how far the command topic is carried out.
type controlState struct {
	Next int64 `json:"next"` // offset of the next command
	// Outcomes are those of the last commands.
	Outcomes []Outcome `json:"outcomes,omitempty"`
}

const (
	routingKey = "routing"
	takenKey   = "tables"
	controlKey = "control"

	// what a position says of the snapshot before it
	snapshotNone    = "none"
	snapshotRunning = "running" // the next start begins it anew
	snapshotDone    = "done"
)

func positionKey(slot int) string { return "position/" + strconv.Itoa(slot) }

func partitionKey(id PartitionID) string { return "partition/" + id.String() }

func tableKey(namespace, name, hash string) string {
	return "table/" + namespace + "." + name + "/" + hash
}

func backfillKey(id string) string { return "backfill/" + id }

func chunkKey(id string, n int) string { return "chunk/" + id + "/" + strconv.Itoa(n) }

// parseState reads the records of a state topic, as stream.Client.LoadState gives them. A
// record that it does not know is an error: a newer tailrace may have written it.
func parseState(records map[string][]byte) (*state, error) {
	s := emptyState()
	for _, key := range sortedKeys(records) {
		if err := s.parse(key, records[key]); err != nil {
			return nil, epochf("if a newer tailrace wrote it, run that version; if somebody else did, a new epoch does without it", "read state record %q: %w", key, err)
		}
	}
	return s, nil
}

func sortedKeys(records map[string][]byte) []string { return slices.Sorted(maps.Keys(records)) }

func emptyState() *state {
	return &state{
		partitions: make(map[PartitionID]partitionState),
		tables:     make(map[string][]tableState),
		routing:    routingState{Topics: make(map[string]topicState)},
		backfills:  make(map[string]*Backfill),
		chunks:     make(map[string]map[int]rangeState),
		accepted:   make(acceptances),
	}
}

func (s *state) parse(key string, value []byte) error {
	kind, rest, _ := strings.Cut(key, "/")
	switch {
	case key == positionKey(0) || key == positionKey(1):
		return json.Unmarshal(value, &s.positions[rest[0]-'0'])
	case kind == "partition":
		id, err := parsePartitionID(rest)
		if err != nil {
			return err
		}
		var p partitionState
		if err := json.Unmarshal(value, &p); err != nil {
			return err
		}
		s.partitions[id] = p
		return nil
	case kind == "table":
		var t []tableState
		if err := json.Unmarshal(value, &t); err != nil {
			return err
		}
		s.tables[key] = t
		return nil
	case key == routingKey:
		return json.Unmarshal(value, &s.routing)
	case key == takenKey:
		return json.Unmarshal(value, &s.taken)
	case key == controlKey:
		return json.Unmarshal(value, &s.control)
	case key == acceptedKey:
		return json.Unmarshal(value, &s.accepted)
	case kind == "backfill":
		b := &Backfill{}
		s.backfills[rest] = b
		return json.Unmarshal(value, b)
	case kind == "chunk":
		return s.parseChunk(rest, value)
	}
	return fmt.Errorf("unknown key")
}

func (s *state) parseChunk(rest string, value []byte) error {
	cut := strings.LastIndexByte(rest, '/')
	n, err := strconv.Atoi(rest[cut+1:])
	if cut <= 0 || err != nil || n < 0 {
		return fmt.Errorf("number of a range %q", rest[cut+1:])
	}
	id := rest[:cut]
	var p rangeState
	if err := json.Unmarshal(value, &p); err != nil {
		return err
	}
	if s.chunks[id] == nil {
		s.chunks[id] = make(map[int]rangeState)
	}
	s.chunks[id][n] = p
	return nil
}

func parsePartitionID(text string) (PartitionID, error) {
	cut := strings.LastIndexByte(text, '/')
	if cut <= 0 {
		return PartitionID{}, fmt.Errorf("no partition number")
	}
	n, err := strconv.ParseInt(text[cut+1:], 10, 32)
	if err != nil || n < 0 {
		return PartitionID{}, fmt.Errorf("partition number %q", text[cut+1:])
	}
	return PartitionID{Topic: text[:cut], Number: int32(n)}, nil
}

// empty says that no position was ever written.
func (s *state) empty() bool { return s.positions[0] == nil && s.positions[1] == nil }

// newest returns the position record with the highest g; nil if there is none.
func (s *state) newest() *positionState {
	a, b := s.positions[0], s.positions[1]
	if a == nil || b != nil && b.G > a.G {
		return b
	}
	return a
}

// oldest returns the number of the older position's cut: what it tells of is true also if
// the newest was torn. 0: there is none.
func (s *state) oldest() uint64 {
	slots := s.bySlot()
	if len(slots) == 0 {
		return 0
	}
	return s.positions[slots[len(slots)-1]].G
}

// known returns the partitions that the capture may have written to: those with a record
// of their own and those of routed topics, sorted.
func (s *state) known() []PartitionID {
	ids := make(map[PartitionID]bool, len(s.partitions))
	for id := range s.partitions {
		if t := s.routing.Topics[id.Topic]; !s.closed(&t) {
			ids[id] = true
		}
	}
	for topic, t := range s.routing.Topics {
		for p := range t.Partitions {
			if !s.closed(&t) {
				ids[PartitionID{topic, p}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(ids), PartitionID.compare)
}
