package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/schemas"
)

// Skipped is what a part of the log holds that is left out.
type Skipped struct {
	Transactions int64            `json:"transactions"` // with changes of captured tables
	Changes      int64            `json:"changes"`
	Tables       map[string]int64 `json:"tables,omitempty"` // changes of each, by schema.table
	// Stopped is why the log could not be read to the end of the part; what is after it is not
	// counted. Last is the transaction in which that was.
	Stopped string `json:"stopped,omitempty"`
	Last    string `json:"last,omitempty"`
	// Partly says that a part of the last transaction is in the topics: it was too large to be
	// written at once. Its end never comes.
	Partly bool `json:"partly,omitempty"`
}

var errCounted = errors.New("the part of the log was counted")

// countLog reads the log between two positions and counts what it holds; nothing is
// written or confirmed.
func countLog(ctx context.Context, cfg *Config, src Source, from, to Position) (*Skipped, error) {
	c := &counter{cfg: cfg, to: to, out: Skipped{Tables: make(map[string]int64)}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	src.Wake(to)
	err := src.Run(ctx, from, c)
	switch {
	case errors.Is(err, errCounted):
	case IsFatal(err):
		if !c.open {
			return nil, err // not about what is skipped
		}
		c.out.Transactions++
		c.out.Stopped, c.out.Last = err.Error(), c.last
	case err == nil:
		return nil, errors.New("count what is skipped: the source ended by itself")
	default:
		return nil, fmt.Errorf("count what is skipped: %w", err)
	}
	return &c.out, nil
}

// partly notes whether a part of a skipped transaction is in the topics: a tail stands behind
// the last whole commit, and before the position.
func (s *Skipped) partly(done order, to Position, tails map[PartitionID]tail) {
	for _, t := range tails {
		at := placePosition(t.place)
		if t.n > 0 && !t.read() && at.Compare(Position{File: done.File, Offset: done.Pos}) > 0 && at.Compare(to) < 0 {
			s.Partly = true
		}
	}
}

// counter is an Emitter that counts.
type counter struct {
	cfg  *Config
	to   Position
	out  Skipped
	open bool
	last string
}

func (c *counter) Begin(tx *Tx) error {
	if (Position{File: tx.File, Offset: tx.Pos}).Compare(c.to) >= 0 {
		return errCounted
	}
	c.open, c.last = true, string([]byte(tx.ID))
	return nil
}

func (c *counter) Table(ctx context.Context, v *TableVersion) (*Route, error) {
	t, err := v.Describe(ctx)
	if err != nil {
		return nil, err
	}
	return &Route{Table: t, Topic: schemas.TopicName(c.cfg.Naming.Prefix, v.Namespace, v.Name)}, nil
}

func (c *counter) Change(_ context.Context, ch *Change) error {
	if ch.Op != 0 { // a tombstone goes with its delete
		c.out.Changes++
		c.out.Tables[ch.Route.Table.Namespace+"."+ch.Route.Table.Name]++
	}
	return nil
}

func (c *counter) Commit(context.Context, Position) error {
	c.open = false
	c.out.Transactions++
	return nil
}

func (c *counter) Idle(_ context.Context, p Position, _ bool) error {
	if p.Compare(c.to) >= 0 {
		return errCounted
	}
	return nil
}

func (c *counter) Wait()   {}
func (c *counter) Resume() {}
