package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/tailrace/tailrace/stream"
)

// childDir names the directory of the broker that this binary is to run when a
// test has started it as another process.
const childDir = "TAILRACE_TEST_EMBEDDED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs a broker, writes batches to it one after the other, and prints
// the number of each as it is acknowledged, until it is killed.
func child(dir string) error {
	ctx := context.Background()
	b, err := Start(ctx, Config{Dir: dir, MinFree: -1})
	if err != nil {
		return err
	}
	c, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		return err
	}
	if _, err := c.EnsureTopic(ctx, stream.TopicSpec{Name: "killed", Partitions: 1, Create: true}); err != nil {
		return err
	}
	p, err := c.NewProducer(ctx, stream.ProducerConfig{})
	if err != nil {
		return err
	}
	fmt.Println(b.Addr())
	o, err := c.Offsets(ctx, "killed", 0)
	if err != nil {
		return err
	}
	for i := o.End; ; i++ {
		out, err := outgoing("killed", fmt.Sprint(i), "")
		if err != nil {
			return err
		}
		if err := p.Produce(ctx, []*stream.Outgoing{out}); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

func outgoing(topic, key, value string) (*stream.Outgoing, error) {
	b := new(stream.Batch)
	err := errors.Join(b.Append(time.Now().UnixMilli(), []byte(key), []byte(value), nil), b.Seal(stream.None, false))
	return &stream.Outgoing{Topic: topic, Batch: b}, err
}

func start(t *testing.T, cfg Config) *Broker {
	t.Helper()
	if cfg.MinFree == 0 {
		cfg.MinFree = -1
	}
	b, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func client(t *testing.T, b *Broker) *stream.Client {
	t.Helper()
	c, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func topic(t *testing.T, c *stream.Client, name string, config map[string]string) {
	t.Helper()
	if _, err := c.EnsureTopic(t.Context(), stream.TopicSpec{Name: name, Partitions: 1, Config: config, Create: true}); err != nil {
		t.Fatal(err)
	}
}

func producer(t *testing.T, c *stream.Client, timeout time.Duration) *stream.Producer {
	t.Helper()
	p, err := c.NewProducer(t.Context(), stream.ProducerConfig{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t *testing.T, p *stream.Producer, topic, key, value string) {
	t.Helper()
	out, err := outgoing(topic, key, value)
	if err == nil {
		err = p.Produce(t.Context(), []*stream.Outgoing{out})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keys returns the keys in a topic, from its start.
func keys(t *testing.T, c *stream.Client, topic string) (all []string) {
	t.Helper()
	_, err := c.ReadCompacted(t.Context(), topic, 0, 0, func(r *stream.Record) error {
		all = append(all, string(r.Key))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantSetupError checks an error of Start.
func wantSetupError(t *testing.T, err error, text, hint string) {
	t.Helper()
	t.Helper()
	var e *setupError
	if !errors.As(err, &e) || !e.Fatal() || !e.Environment() {
		t.Fatalf("error is %v", err)
	}
	if !strings.Contains(err.Error(), text) || !strings.Contains(e.Hint(), hint) {
		t.Errorf("error is %q with hint %q, want %q and %q", err, e.Hint(), text, hint)
	}
}

func TestRestartOnTheSameDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	addr := ""
	var want []string
	for i := range 4 {
		b := start(t, Config{Dir: dir, Listen: addr})
		if addr != "" && b.Addr() != addr {
			t.Errorf("listens on %s, not on %s", b.Addr(), addr)
		}
		addr = b.Addr()
		c := client(t, b)
		topic(t, c, "t", nil)
		if got := keys(t, c, "t"); !slices.Equal(got, want) {
			t.Errorf("start %d: %v, want %v", i, got, want)
		}
		p := producer(t, c, time.Minute)
		for j := range 3 {
			write(t, p, "t", fmt.Sprint(i, j), "v")
			want = append(want, fmt.Sprint(i, j))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // it is empty, and open to others
		t.Fatal(err)
	}
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	topic(t, c, "t", nil)
	write(t, producer(t, c, time.Minute), "t", "k", "v")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		n++
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || n < 5 {
		t.Errorf("looked at %d files, %v", n, err)
	}
}

func TestDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir})
	wantSetupError(t, err, "holds other files", "chmod 700 "+dir)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := start(t, Config{Dir: dir}).Close(); err != nil {
		t.Fatal(err)
	}
	// It is ours now, whatever its mode becomes.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, Config{Dir: dir})
	_, err = Start(t.Context(), Config{})
	wantSetupError(t, err, "no data directory", "directory")
	_, err = Start(t.Context(), Config{Dir: filepath.Join(dir, "mine.txt", "x")})
	wantSetupError(t, err, "make data directory", "writable")
}

func TestOnlyLoopback(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:0", ":9092", "192.168.1.1:9092", "example.org:9092", "[::]:0"} {
		_, err := Start(t.Context(), Config{Dir: t.TempDir(), Listen: bad})
		wantSetupError(t, err, "not on loopback", "127.0.0.1")
	}
	for _, bad := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1"} {
		_, err := Start(t.Context(), Config{Dir: t.TempDir(), Listen: bad})
		wantSetupError(t, err, "not host:port", "127.0.0.1")
	}
	for _, good := range []string{"", "localhost:0", "127.0.0.1:0", "127.1.2.3:0"} {
		b := start(t, Config{Dir: t.TempDir(), Listen: good})
		if err := client(t, b).Ping(t.Context()); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = Start(t.Context(), Config{Dir: dir, Listen: l.Addr().String()})
	wantSetupError(t, err, "in use", "another port")
	start(t, Config{Dir: dir}) // and the lock is free again
}

func TestLockInThisProcess(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	_, err := Start(t.Context(), Config{Dir: dir})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second broker: %v", err)
	}
	wantSetupError(t, err, fmt.Sprintf("in use by process %d", os.Getpid()), "stop that process")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	start(t, Config{Dir: dir})
}

// TestKill kills a broker while it writes, several times, and checks that the
// lock is held and then free, and that whatever was acknowledged is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := int64(-1)
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatalf("the child ended: %v", cmd.Wait())
		}
		_, err = Start(t.Context(), Config{Dir: dir})
		if !errors.Is(err, ErrLocked) {
			t.Fatalf("start beside the child: %v", err)
		}
		wantSetupError(t, err, fmt.Sprintf("by process %d", cmd.Process.Pid), "stop that process")
		for n := 0; lines.Scan(); n++ {
			if acknowledged, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
				t.Fatal(err)
			}
			if n == 20+7*round {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child was not killed")
		}
		b := start(t, Config{Dir: dir})
		got := keys(t, client(t, b), "killed")
		if int64(len(got)) <= acknowledged {
			t.Errorf("round %d: %d records, %d was acknowledged", round, len(got), acknowledged)
		}
		for i, key := range got {
			if key != fmt.Sprint(i) {
				t.Fatalf("round %d: record %d is %s", round, i, key)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNoTransactions(t *testing.T) {
	b := start(t, Config{Dir: t.TempDir()})
	c := client(t, b)
	topic(t, c, "t", nil)
	_, err := c.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: "mine"})
	if !errors.Is(err, stream.ErrNotAuthorized) {
		t.Errorf("transactional producer: %v", err)
	}
	kc, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.TransactionalID("theirs"), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer kc.Close()
	if err := kc.BeginTransaction(); err == nil {
		err = kc.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr()
		if !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
			t.Errorf("another client's transaction: %v", err)
		}
	}
	if got := keys(t, c, "t"); len(got) != 0 {
		t.Errorf("there are records: %v", got)
	}
}

func TestOtherClientsMayReadAndWrite(t *testing.T) {
	b := start(t, Config{Dir: t.TempDir()})
	c := client(t, b)
	topic(t, c, "t", nil)
	kc, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics("t"), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer kc.Close()
	if err := kc.ProduceSync(t.Context(), kgo.KeyStringRecord("theirs", "v")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	write(t, producer(t, c, time.Minute), "t", "ours", "v")
	var got []string
	for len(got) < 2 {
		fetches := kc.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Key)) })
	}
	if !slices.Equal(got, []string{"theirs", "ours"}) {
		t.Errorf("read %v", got)
	}
}

func TestFullDisk(t *testing.T) {
	b := start(t, Config{Dir: t.TempDir(), MinFree: 1})
	c := client(t, b)
	topic(t, c, "t", nil)
	p := producer(t, c, time.Minute)
	write(t, p, "t", "before", "v")
	if b.Low() {
		t.Fatal("one byte is not free")
	}
	b.guard.floor.Store(1 << 62)
	if !b.Low() {
		t.Fatal("the disk is larger than it can be")
	}
	impatient := producer(t, c, 50*time.Millisecond)
	out, err := outgoing("t", "impatient", "")
	if err != nil {
		t.Fatal(err)
	}
	err = impatient.Produce(t.Context(), []*stream.Outgoing{out})
	var e *stream.Error
	if !errors.As(err, &e) || e.Fatal() || !e.Temporary() || !strings.Contains(err.Error(), "MiB free") || !strings.Contains(e.Hint(), "free space") {
		t.Errorf("write to a full disk: %v", err)
	}
	if got := keys(t, c, "t"); !slices.Equal(got, []string{"before"}) { // reading goes on
		t.Errorf("read %v", got)
	}
	waited := make(chan error)
	go func() {
		out, err := outgoing("t", "patient", "")
		if err == nil {
			err = p.Produce(t.Context(), []*stream.Outgoing{out})
		}
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("a patient producer did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	b.guard.floor.Store(1)
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if got := keys(t, c, "t"); !slices.Equal(got, []string{"before", "patient"}) {
		t.Errorf("read %v", got)
	}
}

// TestFailedWrite makes a write fail in kfake. A second attempt must not be
// answered with success, as kfake would: nothing was written.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	topic(t, c, "t", nil)
	p := producer(t, c, time.Minute)
	// Where the partition's directory should be there is a file.
	partitions := filepath.Join(logDir(dir), "partitions")
	if err := os.MkdirAll(partitions, 0o700); err != nil {
		t.Fatal(err)
	}
	blocker := filepath.Join(partitions, "t-0")
	if err := os.RemoveAll(blocker); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kc, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.DefaultProduceTopic("t"), kgo.ProduceRequestTimeout(time.Second), kgo.RecordRetries(3))
	if err != nil {
		t.Fatal(err)
	}
	defer kc.Close()
	out, err := outgoing("t", "lost", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(t.Context(), []*stream.Outgoing{out}); err == nil {
		t.Fatal("a write that failed was acknowledged")
	}
	if !b.guard.failed.Load() {
		t.Error("the guard has not seen that a write failed")
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	write(t, producer(t, c, time.Minute), "t", "next", "")
	if got := keys(t, c, "t"); !slices.Equal(got, []string{"next"}) {
		t.Errorf("read %v", got)
	}
}

func TestCancelledStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v", err)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	b := start(t, Config{Dir: t.TempDir()})
	c := client(t, b)
	topic(t, c, "t", nil)
	write(t, producer(t, c, time.Minute), "t", "k", "v")
	c.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, ignore)
}
