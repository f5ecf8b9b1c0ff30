package capture

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// idlePipeline is a pipeline whose sender does not run. It has the topics p.public.t0 and
// p.transaction, of one partition each.
func idlePipeline(t *testing.T) (*pipeline, *Route) {
	t.Helper()
	cfg := (&testCluster{}).config(newFakeLog(), true)
	cfg.TransactionTimeout = time.Minute
	s := emptyState()
	s.routing.Topics["p.public.t0"] = topicState{Partitions: 1, Collection: "public.t0"}
	s.routing.Topics["p.transaction"] = topicState{Partitions: 1}
	src, err := cfg.Source()
	if err != nil {
		t.Fatal(err)
	}
	p := newPipeline(&cfg, s, start{maxG: 1, from: positionState{G: 1, Epoch: 1}}, nil, nil, src)
	p.end.topic = p.routes.topics["p.transaction"]
	p.engine.taken = takenState{} // of the log, which has no tables
	return p, &Route{Topic: "p.public.t0", topic: p.routes.topics["p.public.t0"]}
}

// writeOne emits a transaction of one row.
func (p *pipeline) writeOne(t *testing.T, r *Route, pos uint64) {
	t.Helper()
	if err := p.Begin(&Tx{Pos: pos, ID: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Change(t.Context(), &Change{Route: r, Op: 'c', Key: make([]byte, frameSize+1), Value: make([]byte, frameSize+1)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context(), Position{Offset: pos + 1}); err != nil {
		t.Fatal(err)
	}
}

// A stop meets a group whose cut is made and which waits for the sender: what goes out at
// last says of every partition that it has.
func TestStopWhileAGroupWaitsForTheSender(t *testing.T) {
	p, r := idlePipeline(t)
	p.send.queue <- new(group) // the sender is busy, and the next group waits
	p.writeOne(t, r, 100)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Idle(stopped, Position{Offset: 200}, true); err == nil {
		t.Fatal("the group was taken")
	}
	<-p.send.queue
	p.finish(t.Context())
	g := <-p.send.queue
	if g == nil || g.cut == nil {
		t.Fatal("nothing was handed over")
	}
	told := make(map[PartitionID]uint64)
	for _, cp := range g.cut.parts {
		told[cp.part.id] = cp.n
	}
	for _, o := range g.out {
		if told[o.part.id] != o.part.n {
			t.Errorf("the state says n = %d of %s, which ends at %d", told[o.part.id], o.part.id, o.part.n)
		}
	}
	if g.cut.slot != 1 || g.cut.position.G != 2 || g.cut.position.Position.Offset != 200 {
		t.Errorf("cut %d in slot %d says %v", g.cut.position.G, g.cut.slot, g.cut.position.Position)
	}
}

// lastWords is a source that writes two more transactions after it was told to stop.
type lastWords struct {
	Source
	write func()
}

func (s *lastWords) Run(ctx context.Context, _ Position, _ Emitter) error {
	<-ctx.Done()
	s.write()
	return ctx.Err()
}

// A sender that fails while the run stops is not waited for.
func TestStopWithASenderThatFails(t *testing.T) {
	c := newCluster(t)
	p, r := idlePipeline(t)
	var err error
	if p.send.prod, err = c.client.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: "x"}); err != nil {
		t.Fatal(err)
	}
	for name := range p.routes.topics {
		if _, err := c.client.EnsureTopic(t.Context(), stream.TopicSpec{Name: name, Partitions: 1, Create: true}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	err = p.run(ctx, &lastWords{write: func() {
		p.writeOne(t, r, 100)      // the sender takes it and fails
		p.send.queue <- new(group) // it is not taken any more
		p.writeOne(t, r, 200)
	}})
	if !errors.Is(err, stream.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > stopGrace/2 {
		t.Errorf("it took %v", took)
	}
}
