package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/sinks"
)

// asSink makes the test's own binary a process with a sink: its value is an errand.
const asSink = "TAILRACE_TEST_AS_SINK"

// errand is what such a process is told.
type errand struct {
	Broker, Registry, Target, Life, Mutant string
}

func TestMain(m *testing.M) {
	text := os.Getenv(asSink)
	if text == "" {
		testenv.Main(m)
		return
	}
	if err := errandOf(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// errandOf delivers until the process is killed.
func errandOf(text string) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	cfg, err := sourceAt(e.Broker, e.Registry)
	if err != nil {
		return err
	}
	w := &world{prefix: "shop", cfg: cfg}
	change := func(s *Sink) sinks.Sink { return s }
	if apply := killMutants[e.Mutant]; apply != nil {
		change = func(s *Sink) sinks.Sink { return &mutant{s, apply} }
	}
	return w.supervise(context.Background(), hookTo(e.Target, e.Life), change, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// killMutants are faults that only a crash shows.
var killMutants = map[string]func(*Sink, context.Context, *sinks.Batch) error{
	"position first": func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		return errors.Join(s.cfg.Positions.Write(ctx, b.Positions), s.Apply(ctx, b))
	},
}

// child is a process with a sink.
type child struct {
	cmd  *exec.Cmd
	log  lockedBuffer
	done chan struct{}
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func startChild(t *testing.T, e errand) *child {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), asSink+"="+string(text))
	c.cmd.Stderr = &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // it is killed
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
}

// forget takes dead processes out of the sink's group, so that the next one need not wait
// until the broker does.
func forget(t *testing.T, client *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{"tailrace-sink-hook"}
	groups, err := describe.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = "tailrace-sink-hook"
	for _, m := range groups.Groups[0].Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		leave.Members = append(leave.Members, member)
	}
	if len(leave.Members) == 0 {
		return
	}
	if _, err := leave.RequestWith(ctx, client); err != nil {
		t.Fatal(err)
	}
}

// await waits for a condition, at most so long; it says whether it came.
func await(d time.Duration, condition func() bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(d); !condition(); {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// killing runs sinks that are killed, then one that is not, and returns how many were killed
// while there was something left to do. Every other is killed after some requests, the
// others after some time, in which they may not have begun.
func killing(t *testing.T, w *world, h *hostile, rng *rand.Rand, kills int, mutant string) (busy int) {
	t.Helper()
	group, err := kgo.NewClient(kgo.SeedBrokers(w.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	e := errand{Broker: w.addr, Registry: w.registry, Target: h.server.URL, Mutant: mutant}
	done := func() bool {
		return h.complete(len(w.want)) || mutant != "" && w.through("hook")() && h.still(3*time.Second)
	}
	for n := range kills {
		e.Life = fmt.Sprint("life ", n)
		c := startChild(t, e)
		if n%2 == 0 {
			until := h.count() + 1 + rng.IntN(60)
			await(time.Minute, func() bool { return h.count() >= until || done() })
		} else {
			await(time.Duration(rng.IntN(500))*time.Millisecond, func() bool { return false })
		}
		if !done() {
			busy++
		}
		c.kill()
		forget(t, group)
		unexpected(t, c)
	}
	e.Life = "the last"
	last := startChild(t, e)
	ended := await(2*time.Minute, done)
	last.kill()
	if unexpected(t, last); !ended {
		t.Errorf("not everything arrives\n%s", last.log.String())
	}
	return busy
}

// unexpected looks at what a process that is dead has said.
func unexpected(t *testing.T, c *child) {
	t.Helper()
	if text := c.log.String(); strings.Contains(text, "panic") || strings.Contains(text, "canary") || strings.Contains(text, "DATA RACE") || c.cmd.ProcessState.Exited() {
		t.Errorf("a process ended with %v and said\n%s", c.cmd.ProcessState, text)
	}
}

// Processes are killed again and again, against a target that misbehaves: every change
// arrives, each key's in order, and what comes again has the same id and body.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	const kills = 50
	rng := seeded(t)
	w := newWorld(t, 4000, rng)
	h := newHostile(t, rng.Uint64(), 0.15)
	busy := killing(t, w, h, rng, kills, "")
	if f := h.verdict(t, w.want); !f.good() || f.repeated == 0 {
		t.Error("see above")
	}
	if busy < kills*4/5 {
		t.Errorf("only %d of %d kills met a sink with something to do", busy, kills)
	}
}

// What is lost because a position was written too early must be seen.
func TestKilledMutantIsCaught(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	w := newWorld(t, 1500, rng)
	h := newHostile(t, rng.Uint64(), 0.15)
	killing(t, w, h, rng, 8, "position first")
	if f := judge(h.seen(), w.want); f.lost == 0 {
		t.Errorf("the mutant survived: %v", f)
	}
}

// A process is frozen in the middle of its work and replaced; when it wakes up, it only
// repeats what was delivered already, and moves no position.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	w := newWorld(t, 3000, rng)
	h := newHostile(t, rng.Uint64(), 0.1)
	group, err := kgo.NewClient(kgo.SeedBrokers(w.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	e := errand{Broker: w.addr, Registry: w.registry, Target: h.server.URL, Life: "frozen"}
	frozen := startChild(t, e)
	if !await(time.Minute, func() bool { return h.count() > 300 }) {
		t.Fatalf("nothing is delivered\n%s", frozen.log.String())
	}
	signal(t, frozen, syscall.SIGSTOP)
	if h.complete(len(w.want)) {
		t.Fatal("it was through before it was frozen")
	}
	forget(t, group)
	e.Life = "other"
	other := startChild(t, e)
	if !await(2*time.Minute, func() bool { return h.complete(len(w.want)) && h.still(time.Second) }) {
		t.Fatalf("not everything arrives\n%s", other.log.String())
	}
	signal(t, frozen, syscall.SIGCONT)
	if !await(time.Minute, func() bool { return strings.Count(frozen.log.String(), "joined group") > 1 && h.still(time.Second) }) {
		t.Fatalf("the frozen process does not join again\n%s", frozen.log.String())
	}
	frozen.kill()
	other.kill()
	if f := h.verdict(t, w.want); !f.good() {
		t.Error("see above")
	}
	positions, err := sinks.NewPositions(w.cfg.Client, "hook").Take(t.Context(), w.partitions)
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, at := range positions {
		n += at.N
	}
	if n != w.records {
		t.Errorf("the positions are at %d of %d records", n, w.records)
	}
}

func signal(t *testing.T, c *child, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
