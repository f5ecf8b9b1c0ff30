package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

// broker tries the broker. The embedded one is another process's while that runs: then it
// is asked at its address, else what it needs to start is looked at.
func (c *checkup) broker(ctx context.Context) []Finding {
	e := c.cfg.Broker.Embedded
	if e == nil {
		return c.probe(ctx, "broker.kafka", c.cfg.Broker)
	}
	if c.opts.Depth == Offline {
		return nil
	}
	pid, err := embedded.Owner(e.Dir)
	if err != nil {
		return []Finding{failed(CodeBrokerDir, "broker.embedded.dir", err)}
	}
	if pid == 0 {
		return checkEmbedded(ctx, e)
	}
	running := *e
	if _, port, _ := net.SplitHostPort(e.Listen); port == "0" {
		if c.opts.Status == nil || c.opts.Status.Broker.Kind != "embedded" {
			return []Finding{{CodeBrokerConnect, Warning, "broker.embedded.listen", fmt.Sprintf("process %d has the data directory open; its address is not known here", pid),
				"name its status address with --http-listen; the process has logged it", nil, false}}
		}
		running.Listen = c.opts.Status.Broker.Address
	}
	out := c.probe(ctx, "broker.embedded.listen", config.Broker{Embedded: &running})
	if out[0].Severity != OK {
		out[0].Mend = fmt.Sprintf("process %d has the data directory open and does not answer at %s: it may be starting, or listen elsewhere", pid, running.Listen)
	}
	return out
}

// embeddedCodes are the codes and paths of what embedded.Check looks at.
var embeddedCodes = map[embedded.CheckStep][2]string{
	embedded.CheckDir:    {CodeBrokerDir, "broker.embedded.dir"},
	embedded.CheckSpace:  {CodeBrokerSpace, "broker.embedded.min_free"},
	embedded.CheckListen: {CodeBrokerListen, "broker.embedded.listen"},
}

func checkEmbedded(ctx context.Context, e *config.Embedded) (out []Finding) {
	for _, r := range embedded.Check(ctx, embedded.Config{Dir: e.Dir, Listen: e.Listen, MinFree: int64(e.MinFree)}) {
		at := embeddedCodes[r.Step]
		if r.Err != nil {
			out = append(out, failed(at[0], at[1], r.Err))
			continue
		}
		out = append(out, ok(at[0], at[1], "%s", r.Found))
	}
	return out
}

// probe goes the way of one record on a topic of its own.
func (c *checkup) probe(ctx context.Context, path string, b config.Broker) []Finding {
	settings, err := app.ClientConfig(b)
	if err != nil {
		return []Finding{failed(CodeBrokerSettings, path, err)}
	}
	if c.opts.Depth == Offline {
		return nil
	}
	settings.Timeout = brokerPatience
	client, err := stream.NewClient(settings)
	if err != nil {
		return []Finding{failed(CodeBrokerSettings, path, err)}
	}
	defer client.Close()
	cfg := stream.ProbeConfig{
		Topic:         stream.TopicSpec{Name: scratchName(), Partitions: 1},
		Transactional: b.Embedded == nil && len(c.cfg.Captures) > 0,
	}
	if len(c.cfg.Captures) > 0 { // as a capture's topics would be
		t := &c.cfg.Captures[0].Topics
		cfg.Topic.Replication, cfg.Topic.Config = t.Replication, t.Config
	}
	begun := time.Now()
	results := client.Probe(ctx, cfg)
	return probed(path, strings.Join(settings.Brokers, ", "), cfg, results, time.Since(begun))
}

// probed makes findings of what a probe came to.
func probed(path, address string, cfg stream.ProbeConfig, results []stream.ProbeResult, took time.Duration) (out []Finding) {
	for _, r := range results {
		switch {
		case r.Err != nil:
			out = append(out, probeFailed(path, cfg, r))
		case r.Step == stream.ProbeConnect:
			out = append(out, ok(CodeBrokerConnect, path, "connected to %s", address))
		case r.Step == stream.ProbeRead:
			how := "wrote a record to a topic of its own and read it"
			if cfg.Transactional {
				how = "wrote a record in a transaction to a topic of its own and read it, committed"
			}
			out = append(out, ok(CodeBrokerProduce, path, "%s, in %s", how, took.Round(time.Millisecond)))
		}
	}
	return out
}

// probeCodes are the codes of the steps that fail.
var probeCodes = map[stream.ProbeStep]string{
	stream.ProbeConnect: CodeBrokerConnect, stream.ProbeCreate: CodeBrokerCreate, stream.ProbeProducer: CodeBrokerProduce,
	stream.ProbeProduce: CodeBrokerProduce, stream.ProbeCommit: CodeBrokerTransaction, stream.ProbeRead: CodeBrokerRead, stream.ProbeDelete: CodeBrokerDelete,
}

// probeFailed makes a finding of a step that failed. A permission that is missing on the
// check's own topic need not be missing on the capture's: that is a warning.
func probeFailed(path string, cfg stream.ProbeConfig, r stream.ProbeResult) Finding {
	f := failed(probeCodes[r.Step], path, r.Err)
	refused := errors.Is(r.Err, stream.ErrNotAuthorized)
	switch {
	case r.Step == stream.ProbeConnect && refused:
		f.Code = CodeBrokerAuth
	case r.Step == stream.ProbeProducer && cfg.Transactional:
		f.Code = CodeBrokerTransaction
	case r.Step == stream.ProbeDelete:
		f.Severity = Warning
		f.Mend = fmt.Sprintf("delete it: kafka-topics.sh --delete --topic %s", cfg.Topic.Name)
	}
	if refused && r.Step != stream.ProbeConnect && r.Step != stream.ProbeDelete {
		f.Severity = Warning
		f.Mend = "to let this be tried: kafka-acls.sh --add --allow-principal User:NAME --operation All --resource-pattern-type prefixed --topic " + scratch + " --transactional-id " + scratch +
			"; the capture needs CREATE, DESCRIBE, READ, WRITE on its own topics and transactional id"
	}
	return f
}

// registry tries the registry. Our own is there while a process runs; else its address
// must be free.
func (c *checkup) registry(ctx context.Context) []Finding {
	if c.opts.Depth == Offline {
		return nil
	}
	r, path := c.cfg.Registry, "registry.url"
	own := r.URL == ""
	if own {
		path = "registry.serve"
		if c.opts.Status != nil && c.opts.Status.Registry.Kind == "served" {
			_, r.Serve, _ = strings.Cut(c.opts.Status.Registry.URL, "://")
		} else if access, err := app.RegistryAccess(&r, slog.New(slog.DiscardHandler)); err != nil {
			return []Finding{failed(CodeRegistryListen, path, err)}
		} else if free := listen(ctx, CodeRegistryListen, path, "the registry", access); free.Severity == OK {
			return []Finding{free}
		}
	}
	client, err := app.NewRegistry(r)
	if err != nil {
		return []Finding{failed(CodeRegistryConnect, path, err)}
	}
	defer client.Close()
	var out []Finding
	for _, step := range client.Probe(ctx, scratchName()) {
		if f, found := registryFinding(path, step); found {
			out = append(out, f)
		}
	}
	if own && c.opts.Status == nil && out[0].Severity != OK {
		out[0].Code, out[0].Mend = CodeRegistryListen, "another process has the address, and is no registry: stop it, or choose another address"
	}
	return out
}

// registryFinding makes a finding of a step of a probe; that a deletion worked is none.
func registryFinding(path string, r registry.ProbeResult) (Finding, bool) {
	var e *registry.Error
	denied := errors.As(r.Err, &e) && (e.Status == 401 || e.Status == 403)
	switch {
	case r.Step == registry.ProbeReach && r.Err == nil:
		return ok(CodeRegistryConnect, path, "the registry answers"), true
	case r.Step == registry.ProbeReach && denied:
		return failed(CodeRegistryAuth, path, r.Err), true
	case r.Step == registry.ProbeReach:
		return failed(CodeRegistryConnect, path, r.Err), true
	case r.Step == registry.ProbeRegister && r.Err == nil:
		return ok(CodeRegistryRegister, path, "registered a schema in a subject of its own, in %s", r.Took.Round(time.Millisecond)), true
	case r.Step == registry.ProbeRegister:
		return failed(CodeRegistryRegister, path, r.Err), true
	case r.Err != nil:
		f := failed(CodeRegistryDelete, path, r.Err)
		f.Severity = Warning
		return f, true
	}
	return Finding{}, false
}
