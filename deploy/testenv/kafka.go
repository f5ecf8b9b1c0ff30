package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaOptions says what node is wanted; its zero value serves tests.
type KafkaOptions struct {
	Port     int               // 0: a free one
	Dir      string            // an empty or new directory, kept at Close; "": a temporary one
	Settings map[string]string // broker properties, over those of defaultProperties
	HeapMiB  int               // the JVM's largest heap; 0: 512
}

// QuickRestart are Settings of a node that is to be stopped or killed and started again: it
// comes back in a third of the time, since the controller forgets the one before sooner. A
// node that stands still for longer is taken for gone.
func QuickRestart() map[string]string {
	return map[string]string{"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
}

// Kafka is one node of Apache Kafka, broker and controller in one. Its methods must not be
// called at the same time as one another.
type Kafka struct {
	Port int    // on 127.0.0.1
	Dir  string // holds logs (the data), server.properties and server.log

	home       string
	opts       KafkaOptions
	controller int // port of the controller's listener
	proc       *Process
	keepDir    bool
}

func (k *Kafka) defaultProperties() map[string]string {
	return map[string]string{
		"process.roles":                                               "broker,controller",
		"node.id":                                                     "1",
		"controller.quorum.voters":                                    fmt.Sprintf("1@127.0.0.1:%d", k.controller),
		"listeners":                                                   fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", k.Port, k.controller),
		"advertised.listeners":                                        fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", k.Port),
		"controller.listener.names":                                   "CONTROLLER",
		"listener.security.protocol.map":                              "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":                                  "PLAINTEXT",
		"log.dirs":                                                    k.logs(),
		"auto.create.topics.enable":                                   "false",
		"num.partitions":                                              "1",
		"offsets.topic.replication.factor":                            "1",
		"offsets.topic.num.partitions":                                "4",
		"transaction.state.log.replication.factor":                    "1",
		"transaction.state.log.min.isr":                               "1",
		"transaction.state.log.num.partitions":                        "4",
		"share.coordinator.state.topic.replication.factor":            "1",
		"share.coordinator.state.topic.min.isr":                       "1",
		"group.initial.rebalance.delay.ms":                            "0",
		"group.min.session.timeout.ms":                                "1000",
		"log.retention.check.interval.ms":                             "300000",
		"log.index.size.max.bytes":                                    "1048576",
		"controlled.shutdown.enable":                                  "false",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"metadata.max.idle.interval.ms":                               "0",
	}
}

// StartKafka starts a node and returns once it answers. The caller must Close it. Jars
// that are missing are an error that names `make deps`.
func StartKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	k := &Kafka{Dir: o.Dir, keepDir: o.Dir != "", opts: o, home: filepath.Join(Deps(), "kafka")}
	if err := need(filepath.Join(k.home, "formatted", "meta.properties")); err != nil {
		return nil, err
	}
	if k.Dir == "" {
		dir, err := os.MkdirTemp("", "tailrace-kafka-")
		if err != nil {
			return nil, err
		}
		k.Dir = dir
	}
	if err := CopyTree(k.logs(), filepath.Join(k.home, "formatted")); err != nil {
		return nil, errors.Join(fmt.Errorf("copy the formatted directory: %w", err), k.Close())
	}
	for try := 1; ; try++ {
		err := k.configure()
		if err == nil {
			err = k.Start(ctx)
		}
		if err == nil {
			return k, nil
		}
		if try == bindTries || !strings.Contains(k.Log(), "Address already in use") || o.Port != 0 {
			return nil, errors.Join(err, k.Close())
		}
	}
}

func (k *Kafka) logs() string { return filepath.Join(k.Dir, "logs") }

// configure picks ports and writes the configuration.
func (k *Kafka) configure() (err error) {
	if k.controller, err = FreePort(); err != nil {
		return err
	}
	if k.Port = k.opts.Port; k.Port == 0 {
		if k.Port, err = FreePort(); err != nil {
			return err
		}
	}
	props := k.defaultProperties()
	for name, v := range k.opts.Settings {
		props[name] = v
	}
	lines := make([]string, 0, len(props))
	for name, v := range props {
		lines = append(lines, name+"="+v+"\n")
	}
	sort.Strings(lines)
	return os.WriteFile(filepath.Join(k.Dir, "server.properties"), []byte(strings.Join(lines, "")), 0o600)
}

// Start starts the stopped or killed node again, on the same port and directory, and
// returns once it answers.
func (k *Kafka) Start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(k.Dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	heap := k.opts.HeapMiB
	if heap == 0 {
		heap = 512
	}
	cmd := exec.Command("java", fmt.Sprintf("-Xmx%dm", heap), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.configurationFile=file:"+filepath.Join(k.home, "log4j2.properties"),
		"-cp", filepath.Join(k.home, "libs", "*"), "kafka.Kafka", filepath.Join(k.Dir, "server.properties"))
	cmd.Dir = k.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if k.proc, err = StartProcess(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	return k.waitReady(ctx)
}

// waitReady asks for metadata until the node answers: it opens its port only once the
// controller has admitted it.
func (k *Kafka) waitReady(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		err := client.Ping(ask)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-k.proc.Done():
			return fmt.Errorf("start Kafka: it ended (%v):\n%s", k.proc.State(), k.Log())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("start Kafka: %w (%v):\n%s", ctx.Err(), err, k.Log()), k.proc.Kill())
		}
	}
}

// Addr is the node's host:port.
func (k *Kafka) Addr() string { return fmt.Sprintf("127.0.0.1:%d", k.Port) }

// Log is the end of what the node wrote, at most 8 KiB.
func (k *Kafka) Log() string { return tailOf(filepath.Join(k.Dir, "server.log"), 8<<10) }

// Stop shuts the node down and returns once it is gone.
func (k *Kafka) Stop(ctx context.Context) error {
	if err := k.proc.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-k.proc.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop Kafka: %w", ctx.Err())
	}
}

// Kill ends the node with SIGKILL.
func (k *Kafka) Kill() error { return k.proc.Kill() }

// Close kills the node, if it runs, and removes its directory, unless the caller chose one.
func (k *Kafka) Close() error {
	var err error
	if k.proc != nil {
		err = k.proc.Kill()
	}
	if !k.keepDir && k.Dir != "" {
		err = errors.Join(err, os.RemoveAll(k.Dir))
	}
	return err
}

// NewKafka is StartKafka for one test.
func NewKafka(tb TB, o KafkaOptions) *Kafka {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	k, err := StartKafka(ctx, o)
	if err != nil {
		tb.Fatalf("start Kafka: %v", err)
	}
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Errorf("close Kafka: %v", err)
		}
	})
	return k
}
