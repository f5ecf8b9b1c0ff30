package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// A ProbeStep is a step of Probe.
type ProbeStep string

// The steps of Probe, in their order.
const (
	ProbeConnect  ProbeStep = "connect"  // a round trip to a broker
	ProbeCreate   ProbeStep = "create"   // of the scratch topic
	ProbeProducer ProbeStep = "producer" // a producer id, with the scratch transactional id
	ProbeProduce  ProbeStep = "produce"  // one record
	ProbeCommit   ProbeStep = "commit"   // of the transaction that holds it
	ProbeRead     ProbeStep = "read"     // the record, as a read_committed reader
	ProbeDelete   ProbeStep = "delete"   // of the scratch topic
)

// ProbeConfig says what Probe tries.
type ProbeConfig struct {
	Topic         TopicSpec // a scratch topic, which nothing else uses; it is created and deleted
	Transactional bool      // produce in a transaction, with the topic's name as transactional id
}

// ProbeResult is what became of one step; Err is nil if it worked.
type ProbeResult struct {
	Step ProbeStep
	Took time.Duration
	Err  error
}

// probeClean is how long the scratch topic's deletion may take, after the context's end.
const probeClean = 10 * time.Second

// Probe goes the way of one record on a topic of its own: it creates the topic, produces,
// commits, reads, and deletes the topic, also if a step fails or ctx ends. It fences nobody.
// The steps that were tried are returned, of which at most one of the first six and the
// last can have failed.
func (c *Client) Probe(ctx context.Context, cfg ProbeConfig) []ProbeResult {
	p := &probe{client: c, cfg: cfg, made: false}
	ok := p.step(ProbeConnect, func() error { return c.Ping(ctx) }) &&
		p.step(ProbeCreate, func() error { return p.create(ctx) }) &&
		p.step(ProbeProducer, func() error { return p.open(ctx) }) &&
		p.step(ProbeProduce, func() error { return p.produce(ctx) }) &&
		p.step(ProbeCommit, func() error { return p.producer.End(ctx, true) }) &&
		p.step(ProbeRead, func() error { return p.read(ctx) })
	if !p.made {
		return p.results
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeClean)
	defer cancel()
	if !ok && p.producer != nil {
		_ = p.producer.End(clean, false) // else the broker does, once the transaction's time is over
	}
	p.step(ProbeDelete, func() error { return c.DeleteTopic(clean, cfg.Topic.Name) })
	return p.results
}

// probe is a Probe under way.
type probe struct {
	client   *Client
	cfg      ProbeConfig
	made     bool // the topic may be there
	producer *Producer
	results  []ProbeResult
}

func (p *probe) step(step ProbeStep, fn func() error) bool {
	begun := time.Now()
	err := fn()
	p.results = append(p.results, ProbeResult{step, time.Since(begun), err})
	return err == nil
}

// create creates the topic. An answer that does not come may mean that it was created.
func (p *probe) create(ctx context.Context) error {
	spec := p.cfg.Topic
	spec.Create = true
	info, err := p.client.EnsureTopic(ctx, spec)
	e, known := asError(err)
	p.made = info.Created || err != nil && (!known || e.act != actStop)
	if err == nil && !info.Created {
		return fmt.Errorf("create topic %s: it is there already", spec.Name)
	}
	return err
}

func (p *probe) open(ctx context.Context) (err error) {
	cfg := ProducerConfig{Timeout: p.client.timeout, TransactionTimeout: time.Minute}
	if p.cfg.Transactional {
		cfg.TransactionalID = p.cfg.Topic.Name
	}
	p.producer, err = p.client.NewProducer(ctx, cfg)
	return err
}

// body is the value of the one record.
func (p *probe) body() []byte { return []byte("of " + p.cfg.Topic.Name) }

func (p *probe) produce(ctx context.Context) error {
	var b Batch
	if err := b.Append(time.Now().UnixMilli(), []byte("probe"), p.body(), nil); err != nil {
		return err
	}
	if err := b.Seal(None, p.cfg.Transactional); err != nil {
		return err
	}
	return p.producer.Produce(ctx, []*Outgoing{{Topic: p.cfg.Topic.Name, Batch: &b}})
}

var errProbeLost = errors.New("the record that was acknowledged is not there")

func (p *probe) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.client.timeout)
	defer cancel()
	if p.cfg.Transactional { // the markers follow the answer
		if _, err := p.client.WaitStable(ctx, p.cfg.Topic.Name, 0); err != nil {
			return err
		}
	}
	found := false
	_, err := p.client.ReadToEnd(ctx, p.cfg.Topic.Name, 0, 0, func(r *Record) error {
		found = found || bytes.Equal(r.Value, p.body())
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("read topic %s: %w", p.cfg.Topic.Name, errProbeLost)
	}
	return err
}
