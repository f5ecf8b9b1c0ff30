package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The README's program, as it stands there but for the addresses, prints the demo's
// orders as it decodes them.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	text, root := readme(t)
	_, rest, _ := strings.Cut(text, "```go\n")
	program, _, found := strings.Cut(rest, "```\n")
	if lines := strings.Count(program, "\n"); !found || lines > 25 {
		t.Fatalf("the program has %d lines", lines)
	}
	p := startDemo(t, "--registry-url", "--for", "20s", "-o", "json")
	select {
	case <-p.reached:
	case <-p.done:
		t.Fatalf("the demo has ended\n%s", p.said.String())
	case <-time.After(patience):
		t.Fatalf("the demo does not say its addresses\n%s", p.said.String())
	}
	at := regexp.MustCompile(`--brokers (\S+) --registry-url (\S+)`).FindStringSubmatch(p.said.String())
	for was, is := range map[string]string{`"127.0.0.1:9092"`: fmt.Sprintf("%q", at[1]), `"http://127.0.0.1:8081"`: fmt.Sprintf("%q", at[2])} {
		if strings.Count(program, was) != 1 {
			t.Fatalf("the program does not have the address %s once", was)
		}
		program = strings.Replace(program, was, is, 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "orders.go"), filepath.Join(dir, "orders")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := regexp.MustCompile(`[rcu] (<nil>|&\{.*\}) -> &\{ID:[1-9]\d* StoreID:[1-4]\}$`)
	for printed := 0; printed < 20; {
		select {
		case <-p.done:
			t.Fatalf("the demo ended before the program had printed\n%s%s", p.out.String(), p.said.String())
		default:
		}
		printed = printsOrders(t, binary, want, 20) // the topic comes with its first row
	}
	p.exit(0)
}

// printsOrders runs the program until it has printed n lines that match, or ends.
func printsOrders(t *testing.T, binary string, want *regexp.Regexp, n int) (printed int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, or ended by itself: what it printed counts
	}()
	for lines := bufio.NewScanner(out); printed < n && lines.Scan(); {
		if want.MatchString(lines.Text()) {
			printed++
		}
	}
	return printed
}
