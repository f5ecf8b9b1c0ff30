package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// frozenFor is longer than a consumer group waits for a silent member.
const frozenFor = 30 * time.Second

// Two members of one sink. The one that writes is stopped in the middle of its work, so
// that the other takes over, and is woken when its time is long past: what it still had in
// hand must not be written a second time, which the table without a key would show.
func TestFrozenSinkMember(t *testing.T) {
	t.Parallel()
	pg := testenv.SharedPostgres(t)
	source, target := pg.CreateDatabase(t), pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), source, "CREATE TABLE journal (n bigint, body text)", "ALTER TABLE journal REPLICA IDENTITY FULL",
		"CREATE TABLE counter (id int PRIMARY KEY, n bigint)", "INSERT INTO counter VALUES (1, 0)"); err != nil {
		t.Fatal(err)
	}
	name, address := testenv.Unique("frozen"), freeAddress(t)
	broker := kafkaBroker(t)
	in := settings{name: name, broker: broker, url: pg.AdminURL(source),
		registry: fmt.Sprintf("{ serve: %q, topic: %s }", address, testenv.Unique("schemas"))}
	capture := in.configure(t).start(t)
	capture.ready()
	member := func() *process {
		i := &instance{file: filepath.Join(t.TempDir(), "sink.yaml"), http: freeAddress(t), url: pg.AdminURL(target)}
		text := fmt.Sprintf("broker: %s\nregistry: { url: \"http://%s\" }\nhttp: { listen: %s }\n%s",
			broker, address, i.http, sinkTo(t, name, i.url))
		if err := os.WriteFile(i.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return i.start(t)
	}
	rest := scribble(t, pg.AdminURL(source))
	first := member()
	first.until("applying", func() bool { return first.sinkIs("running") && applied(t, pg, target) > 100 })
	second := member()
	second.until("in the group", func() bool { return second.sinkIs("standby") || second.sinkIs("running") })
	owner, other := first, second
	if second.sinkIs("running") {
		owner, other = second, first
	}
	send(t, owner, syscall.SIGSTOP)
	woken := time.NewTimer(frozenFor)
	at := applied(t, pg, target)
	other.until("applying instead", func() bool { return other.sinkIs("running") && applied(t, pg, target) > at+100 })
	select {
	case <-woken.C:
	case <-t.Context().Done():
		t.Fatal("interrupted")
	}
	at = applied(t, pg, target)
	send(t, owner, syscall.SIGCONT)
	owner.until("in the group again", func() bool { return owner.sinkIs("standby") || owner.sinkIs("running") && !other.sinkIs("running") })
	other.until("going on", func() bool { return applied(t, pg, target) > at+100 })
	rest()
	other.until("equal", func() bool { return sameTables(t, pg, source, target, "journal", "counter") == "" })
	for _, p := range []*process{owner, other} {
		p.stop(syscall.SIGTERM, 0)
		if text := p.log.String(); strings.Contains(text, `"level":"ERROR"`) || strings.Contains(text, "level=ERROR") {
			t.Errorf("errors in a member's log:\n%s", text)
		}
	}
	capture.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, source, in.slot())
	if different := sameTables(t, pg, source, target, "journal", "counter"); different != "" {
		t.Error(different)
	}
}

// send sends s to a running process.
func send(t *testing.T, p *process, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// sinkIs says whether the process's only sink is in a state.
func (p *process) sinkIs(state string) bool {
	_, body := p.get("/status")
	_, sinks, _ := strings.Cut(body, `"sinks": [`)
	sinks, _, _ = strings.Cut(sinks, `"events": `)
	return strings.Contains(sinks, fmt.Sprintf(`"state": %q`, state))
}

// applied is how many rows the target's journal has.
func applied(t *testing.T, pg *testenv.Postgres, target string) int {
	t.Helper()
	var n int
	exists := query(t, pg, target, "SELECT (to_regclass('journal') IS NOT NULL)::text")
	if exists == "true" {
		if _, err := fmt.Sscan(query(t, pg, target, "SELECT count(*)::text FROM journal"), &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// scribble commits transactions over two tables until what it returns is called.
func scribble(t *testing.T, url string) (rest func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ctx.Err() == nil; n++ {
			_, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("BEGIN; INSERT INTO journal SELECT %d, repeat('x', 200) FROM generate_series(1, 5); UPDATE counter SET n = %d; COMMIT", n, n))
			if err != nil {
				ended <- err
				return
			}
			<-tick.C
		}
		ended <- nil
	}()
	rest = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil // for a second call
		_ = conn.Close(context.WithoutCancel(t.Context()))
	}
	t.Cleanup(rest)
	return rest
}
