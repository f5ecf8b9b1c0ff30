package capture

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// BackfillState is where a backfill stands.
type BackfillState string

// The states of a backfill.
const (
	BackfillWaiting   BackfillState = "waiting" // for its turn, or for the capture
	BackfillRunning   BackfillState = "running"
	BackfillPaused    BackfillState = "paused"
	BackfillDone      BackfillState = "done"
	BackfillFailed    BackfillState = "failed" // may be resumed, once its cause is mended
	BackfillCancelled BackfillState = "cancelled"
)

// Ended says that nothing more is going to be read, unless it is resumed.
func (s BackfillState) Ended() bool {
	return s == BackfillDone || s == BackfillFailed || s == BackfillCancelled
}

// Why there is a backfill.
const (
	CauseInitial   = "initial"   // the first start of a capture, or of a new epoch
	CauseAdded     = "added"     // the table has joined the capture
	CauseRequested = "requested" // by an operator
)

// Backfill is the reading of one table's rows while its log is tailed: the record
// backfill/<id> of the state topic.
type Backfill struct {
	ID        string        `json:"id"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Cause     string        `json:"cause"`
	State     BackfillState `json:"state"`

	Where   string   `json:"where,omitempty"`    // condition on the rows, in the database's language
	FromKey []string `json:"from_key,omitempty"` // rows after this key only, one text for each key column
	ToKey   []string `json:"to_key,omitempty"`   // rows up to this key only
	ToTopic string   `json:"to_topic,omitempty"` // where the rows go, and copies of changes meanwhile; "": the table's topic
	Rate    int      `json:"rate,omitempty"`     // rows a second at most; 0: no limit
	By      string   `json:"by,omitempty"`       // who asked for it

	Requested time.Time  `json:"requested"`
	Started   *time.Time `json:"started,omitempty"`
	Ended     *time.Time `json:"ended,omitempty"`
	Error     string     `json:"error,omitempty"`
	Hint      string     `json:"hint,omitempty"`

	Identity string   `json:"identity,omitempty"` // of the table, since it was planned
	Key      []string `json:"key,omitempty"`      // key columns
	Ranges   int      `json:"ranges,omitempty"`   // parts that are read side by side; 0: not planned
	Estimate int64    `json:"estimate,omitempty"` // rows of the table; 0: not known
	// Resumed is when it began to run last, with ResumedAt rows read by then.
	Resumed   *time.Time `json:"resumed,omitempty"`
	ResumedAt int64      `json:"resumed_at,omitempty"`

	// Of what is written; kept in records of their own while the backfill runs.
	Rows int64 `json:"rows"` // written to the topic
	Read int64 `json:"read"` // read from the table: some may have been changed meanwhile
}

// Table returns schema.table.
func (b *Backfill) Table() string { return b.Namespace + "." + b.Name }

// RowsPerSecond returns the rows read a second since it began to run last.
func (b *Backfill) RowsPerSecond(now time.Time) float64 {
	if b.Resumed == nil || b.State != BackfillRunning {
		return 0
	}
	d := now.Sub(*b.Resumed).Seconds()
	if d <= 0 {
		return 0
	}
	return float64(b.Read-b.ResumedAt) / d
}

// Left returns how long the rest takes at the rate so far; ok is false if nobody knows.
func (b *Backfill) Left(now time.Time) (left time.Duration, ok bool) {
	rate := b.RowsPerSecond(now)
	if rate <= 0 || b.Estimate <= b.Read || b.Where != "" || b.FromKey != nil || b.ToKey != nil {
		return 0, false
	}
	return time.Duration(float64(b.Estimate-b.Read) / rate * float64(time.Second)), true
}

// Backfills reads what the state topic says of a capture's backfills, in the order in which
// they were asked for. The capture need not run.
func Backfills(ctx context.Context, client *stream.Client, capture string) ([]Backfill, error) {
	cfg := Config{Name: capture, Client: client}
	s, err := loadState(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	return s.listBackfills(), nil
}

func (s *state) listBackfills() []Backfill {
	list := make([]Backfill, 0, len(s.backfills))
	for _, id := range slices.Sorted(maps.Keys(s.backfills)) {
		b := *s.backfills[id]
		if b.State != BackfillDone {
			b.Rows, b.Read = sumProgress(s.chunks[id])
		}
		list = append(list, b)
	}
	slices.SortStableFunc(list, func(a, b Backfill) int { return a.Requested.Compare(b.Requested) })
	return list
}

func sumProgress(ranges map[int]rangeState) (rows, read int64) {
	for _, p := range ranges {
		rows += p.Rows
		read += p.Read
	}
	return rows, read
}

// initialID names the backfill of a table that comes with an epoch.
func initialID(epoch uint64, table string) string {
	return fmt.Sprintf("%s-%d-%s", CauseInitial, epoch, table)
}
