package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/stream"
)

const (
	// DefaultMinFree is the free space in bytes below which nothing is written.
	DefaultMinFree = 256 << 20
	// MaxMessageBytes is the largest batch that a topic takes that does not set
	// max.message.bytes.
	MaxMessageBytes = 16 << 20
	// SegmentBytes is how large a file of a topic's log grows that does not set
	// segment.bytes. Retention and compaction let go of whole files.
	SegmentBytes = 16 << 20
)

// Config says where the broker keeps its log and where it listens.
type Config struct {
	// Dir is the data directory. It is made, with mode 0700; one that is there
	// must be empty, or a broker's, or closed to others already.
	Dir string
	// Listen is host:port on loopback; port 0 chooses one. Default 127.0.0.1:0.
	Listen string
	// MinFree is how many bytes the disk must have free for anything to be
	// written. 0: DefaultMinFree; less: no bound.
	MinFree int64
	Log     *slog.Logger // nil: silent
}

// A Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    *lock
	guard   *guard
	client  *stream.Client // the keeper's
	stop    context.CancelFunc
	kept    sync.WaitGroup // the keeper
	close   sync.Once
	closed  error
}

// Start opens the data directory and serves it; reading a large log takes a
// moment. From then on the process's umask is 077, since the broker makes
// files as it goes. The error is an ErrLocked if another process has the
// directory open.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	host, port, err := loopback(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = DefaultMinFree
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start embedded broker: %w", err)
	}
	syscall.Umask(0o077)
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{lock: lock, guard: &guard{dir: cfg.Dir, log: cfg.Log}}
	b.guard.floor.Store(cfg.MinFree)
	if err := b.serve(cfg.Dir, host, port); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	if err := b.keep(cfg); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// keep starts the keeper.
func (b *Broker) keep(cfg Config) (err error) {
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	if b.client, err = stream.NewClient(stream.Config{Brokers: []string{b.addr}, ClientID: "tailrace-embedded", Timeout: 10 * time.Second}); err != nil {
		return fmt.Errorf("start embedded broker: %w", err)
	}
	k := &keeper{
		cluster: b.cluster, client: b.client, guard: b.guard, log: cfg.Log,
		dir: filepath.Join(logDir(cfg.Dir), "partitions"), live: make(map[string]int64),
	}
	b.kept.Go(func() { k.run(ctx) })
	return nil
}

// logDir is where kfake keeps its files.
func logDir(dir string) string { return filepath.Join(dir, "log") }

// settings are the broker's. Topics that do not ask for a retention keep
// everything, and kfake's own run never comes: see keeper.
var settings = map[string]string{
	"message.max.bytes":      strconv.Itoa(MaxMessageBytes),
	"log.segment.bytes":      strconv.Itoa(SegmentBytes),
	"log.retention.ms":       "-1",
	"log.retention.bytes":    "-1",
	"log.cleaner.backoff.ms": strconv.Itoa(250 * 365 * 24 * 3600 * 1000), // in 250 years
}

// serve starts kfake on the directory.
func (b *Broker) serve(dir, host string, port int) error {
	listen := func(network, _ string) (net.Listener, error) {
		return net.Listen(network, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(listen),
		kfake.ClusterID("tailrace-embedded"),
		kfake.DataDir(logDir(dir)),
		kfake.SyncWrites(),
		kfake.DefaultNumPartitions(1),
		kfake.BrokerConfigs(settings),
		kfake.WithLogger(b.guard),
	)
	if err != nil {
		return b.cannotServe(err, host, port)
	}
	b.guard.install(cluster)
	b.cluster, b.addr = cluster, cluster.ListenAddrs()[0]
	return nil
}

func (b *Broker) cannotServe(err error, host string, port int) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return environment(fmt.Errorf("listen on %s port %d: %w", host, port, err), "another process listens there: give another port, or 0")
	}
	return environment(fmt.Errorf("open the log: %w", err), "the data directory cannot be read as a broker's")
}

// Addr returns host:port where the broker listens.
func (b *Broker) Addr() string { return b.addr }

// Low says that the disk has less free space than the floor. Until that has
// changed, each Produce is answered with an error that clients try again.
func (b *Broker) Low() bool { _, low := b.guard.low(); return low }

// Close stops the broker. Everything that was acknowledged is on the disk.
// Close may be called again.
func (b *Broker) Close() error {
	b.close.Do(func() {
		b.stop()
		b.kept.Wait()
		if b.client != nil {
			b.client.Close()
		}
		b.cluster.Close()
		b.closed = b.lock.release()
	})
	return b.closed
}

// loopback takes apart a listen address and refuses all that are not loopback:
// the broker asks for no password and grants everything.
func loopback(listen string) (host string, port int, err error) {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	host, text, err := net.SplitHostPort(listen)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, environment(fmt.Errorf("listen address %q is not host:port", listen), "give for example 127.0.0.1:9092")
	}
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1", port, nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, environment(fmt.Errorf("listen address %q is not on loopback", listen),
			"the embedded broker has no access control: it listens on 127.0.0.1 or ::1 only; use Apache Kafka to serve other machines")
	}
	return host, port, nil
}

// makeDir makes sure that dir is a directory that only we can look into.
func makeDir(dir string) error {
	if dir == "" {
		return environment(errors.New("no data directory is given"), "set a directory for the broker's log")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return environment(fmt.Errorf("make data directory: %w", err), "the directory must be writable by the user that runs this process")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return environment(fmt.Errorf("look at data directory: %w", err), "the directory must be readable")
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := closable(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return environment(fmt.Errorf("close data directory to others: %w", err), "the directory must belong to the user that runs this process")
	}
	return nil
}

// closable refuses a directory that may not be closed to others: it holds other files.
func closable(dir string) error {
	if ours, err := ownable(dir); err != nil || !ours {
		return environment(errors.Join(fmt.Errorf("data directory %s is open to other users and holds other files", dir), err),
			"give a directory of its own, or close this one: chmod 700 "+dir)
	}
	return nil
}

// ownable says whether dir is empty, or a broker's.
func ownable(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return err == nil, err
	}
	_, err = os.Stat(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
