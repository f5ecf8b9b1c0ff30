package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// Config is what a capture runs with.
type Config struct {
	Name          string         // of the capture; its state topic and transactional id come from it
	Naming        schemas.Naming // topic prefix, connector, name adjustment
	Client        *stream.Client
	Registry      *registry.Client
	Source        func() (Source, error) // makes the source of one run
	Transactional bool                   // Apache Kafka; false: the embedded broker
	Snapshot      SnapshotMode
	Backfill      BackfillConfig
	Look          <-chan struct{} // has the source asked at once which tables it captures; may be nil
	Topics        Topics
	Codec         stream.Codec
	// TransactionTimeout is after what time the broker gives up a transaction that is not
	// ended; a quarter of it is how long one is kept open. 0: one minute.
	TransactionTimeout time.Duration
	Monitor            *Monitor
	Log                *slog.Logger
}

// Topics says how topics are made.
type Topics struct {
	Partitions  int32             // of a topic of changes
	Replication int16             // 0 or less: the broker's default
	Create      bool              // false: they must exist
	Config      map[string]string // more settings, as the broker names them
}

// SnapshotMode says when the rows are read that tables have already.
type SnapshotMode string

// The modes.
const (
	SnapshotNever   SnapshotMode = "never"       // only what changes is read
	SnapshotInitial SnapshotMode = "initial"     // at the first start, and of tables that join
	SnapshotNeeded  SnapshotMode = "when_needed" // and anew, in a new epoch, when the log is lost
)

func (m SnapshotMode) reads() bool { return m == SnapshotInitial || m == SnapshotNeeded }

// BackfillConfig bounds what backfills take.
type BackfillConfig struct {
	Readers int // chunks that are read at the same time; 0: 2
	Rate    int // rows a second that each backfill reads at most; 0: no limit
}

func (c *BackfillConfig) readers() int {
	if c.Readers == 0 {
		return 2
	}
	return c.Readers
}

// rate returns the smaller of the general limit and one backfill's own.
func (c *BackfillConfig) rate(own int) int {
	if c.Rate == 0 || own != 0 && own < c.Rate {
		return own
	}
	return c.Rate
}

// StateTopic returns the name of the capture's state topic.
func (c *Config) StateTopic() string { return "__tailrace." + c.Name + ".state" }

// TransactionalID returns the id under which the capture owns its topics.
func (c *Config) TransactionalID() string { return "tailrace." + c.Name }

// EndTopic returns the name of the topic of END records.
func (c *Config) EndTopic() string { return c.Naming.Prefix + ".transaction" }

func (c *Config) validate() error {
	switch {
	case c.Name == "" || c.Naming.Prefix == "":
		return errors.New("capture without a name or topic prefix")
	case c.Client == nil || c.Registry == nil || c.Source == nil || c.Monitor == nil || c.Log == nil:
		return errors.New("capture without a broker, registry, source, monitor or log")
	case c.Topics.Partitions < 1:
		return errors.New("topics need at least one partition")
	case c.Backfill.Readers < 0 || c.Backfill.Rate < 0:
		return errors.New("backfills need a positive number of readers and rate")
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = time.Minute
	}
	return nil
}

// stopGrace is how long a run that is told to stop may take to write what it has.
const stopGrace = 15 * time.Second

// Run is one run of a capture: it recovers, then writes changes until ctx ends or
// something fails. When ctx ends, what is complete is written first; Run then returns nil.
// After an error that is not fatal (IsFatal), calling it again is the recovery.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return stopf("this is a mistake in the program that calls capture.Run", "%w", err)
	}
	cfg.Monitor.phase(PhaseStarting)
	src, err := cfg.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	pipe, err := begin(ctx, &cfg, src)
	if err != nil {
		if ctx.Err() != nil && !IsFatal(err) {
			return nil
		}
		return err
	}
	cfg.Monitor.phase(PhaseRunning)
	return pipe.run(ctx, src)
}

// run lets the source write to the pipeline and the sender to the broker. Of the two
// goroutines the first to fail ends the other; run waits for both.
func (p *pipeline) run(ctx context.Context, src Source) error {
	readCtx, stopReading := context.WithCancelCause(ctx)
	defer stopReading(nil)
	sendCtx, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	sent := make(chan error, 1)
	go func() {
		err := p.send.run(sendCtx)
		if err != nil {
			stopReading(err)
			stopSending(err) // nobody takes what finish hands over
		}
		sent <- err
	}()
	err := p.locate(p.read(readCtx, src))
	stopped := ctx.Err() != nil && context.Cause(readCtx) == context.Cause(ctx)
	timer := time.AfterFunc(stopGrace, func() { stopSending(errStopGrace) })
	defer timer.Stop()
	if stopped {
		p.finish(sendCtx)
	}
	// What is under way is seen through, also after an error: it must not land when the
	// next start has read the tails.
	close(p.send.queue)
	sendErr := <-sent
	switch {
	case stopped && sendErr != nil:
		return fmt.Errorf("stop: %w", sendErr)
	case stopped:
		return nil
	case sendErr != nil && context.Cause(readCtx) == sendErr: // it was what ended the reading
		return sendErr
	case err == nil:
		err = errors.New("source ended by itself")
	}
	return err
}

// read lets the source write its snapshot, if there is to be one, and then its log.
func (p *pipeline) read(ctx context.Context, src Source) error {
	if p.prog.snapshot == snapshotRunning {
		if err := p.snapshot(ctx, src); err != nil {
			return err
		}
	}
	reading, stop := context.WithCancel(ctx)
	if err := p.engine.start(reading); err != nil {
		stop()
		return err
	}
	defer func() {
		stop()
		if err := p.engine.stop(); err != nil {
			p.log.Debug("did not close the connections of backfills in order", "error", err)
		}
	}()
	from := p.prog.base
	p.log.Info("capture runs", "position", from.String(), "epoch", p.prog.epoch, "tails_ahead", len(p.prog.ahead))
	return src.Run(ctx, from, p)
}

var errStopGrace = errors.New("the broker did not take the last changes in time; they are read again at the next start")

// finish hands over what is complete.
func (p *pipeline) finish(ctx context.Context) {
	if p.group == nil || p.open || p.unended > 0 || p.group.commits == 0 {
		return
	}
	g := p.cutGroup()
	g.close()
	select {
	case p.send.queue <- g:
	case <-ctx.Done():
	}
}
