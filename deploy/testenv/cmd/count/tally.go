package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// tally counts tests over several runs of go test.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	brokers                 map[string]*[2]int // passed, failed
	packages                map[string]*pkg
	builds                  map[string]*bytes.Buffer // output of builds, by import path
}

// pkg is a package whose tests run.
type pkg struct {
	passed, failed, skipped int
	output                  bytes.Buffer // what belongs to no test
	tests                   map[string]*test
}

type test struct {
	output  bytes.Buffer
	parent  bool // it has subtests
	failing bool // one of its subtests failed
	done    bool // its end was told; output may follow
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, brokers: map[string]*[2]int{"embedded": {}, "kafka": {}},
		packages: map[string]*pkg{}, builds: map[string]*bytes.Buffer{}}
}

// read takes the events of one run, to their end.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				t.out.Write(line) // go's own word, not an event
			} else {
				t.take(&e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the test events: %w", err)
		}
	}
}

func (t *tally) take(e *event) {
	switch {
	case e.Action == "build-output":
		if t.builds[e.ImportPath] == nil {
			t.builds[e.ImportPath] = new(bytes.Buffer)
		}
		t.builds[e.ImportPath].WriteString(e.Output)
	case e.Action == "build-fail":
	case e.Test != "":
		t.takeTest(e)
	default:
		t.takePackage(e)
	}
}

func (t *tally) pkg(name string) *pkg {
	p := t.packages[name]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		t.packages[name] = p
	}
	return p
}

func (p *pkg) test(name string) *test {
	tt := p.tests[name]
	if tt == nil {
		tt = &test{}
		p.tests[name] = tt
	}
	return tt
}

func (t *tally) takeTest(e *event) {
	p := t.pkg(e.Package)
	tt := p.test(e.Test)
	up := strings.LastIndexByte(e.Test, '/')
	switch e.Action {
	case "run":
		if up >= 0 {
			p.test(e.Test[:up]).parent = true
		}
		return
	case "output":
		tt.output.WriteString(e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Action == "skip" { // with its reason
		fmt.Fprintf(t.out, "skip %s %s\n%s", e.Package, e.Test, tt.output.String())
	}
	if e.Action == "fail" {
		fmt.Fprintf(t.out, "## %s\n%s", e.Package, tt.output.String())
		if up >= 0 {
			p.test(e.Test[:up]).failing = true
		}
	}
	// A parent counts only if it failed by itself.
	if !tt.parent || e.Action == "fail" && !tt.failing {
		t.count(p, e)
	}
	tt.done = true
	tt.output = bytes.Buffer{}
}

func (t *tally) count(p *pkg, e *event) {
	switch e.Action {
	case "pass":
		p.passed++
	case "skip":
		p.skipped++
	case "fail":
		p.failed++
	}
	for _, part := range strings.Split(e.Test, "/") {
		if c := t.brokers[part]; c != nil && e.Action != "skip" {
			if e.Action == "pass" {
				c[0]++
			} else {
				c[1]++
			}
			return
		}
	}
}

func (t *tally) takePackage(e *event) {
	p := t.pkg(e.Package)
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
		return
	case "pass", "skip":
	case "fail":
		t.failPackage(e, p)
	default:
		return
	}
	word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "none"}[e.Action]
	if e.Action != "skip" {
		fmt.Fprintf(t.out, "%s %s %.1fs: %d passed, %d failed, %d skipped\n", word, e.Package, e.Elapsed, p.passed, p.failed, p.skipped)
	}
	t.passed, t.failed, t.skipped = t.passed+p.passed, t.failed+p.failed, t.skipped+p.skipped
	delete(t.packages, e.Package)
}

// failPackage shows why a package failed that has no failing test, and counts it.
func (t *tally) failPackage(e *event, p *pkg) {
	if e.FailedBuild != "" {
		p.failed++
		fmt.Fprintf(t.out, "## %s does not build\n", e.Package)
		if b := t.builds[e.FailedBuild]; b != nil {
			t.out.Write(b.Bytes())
		}
		return
	}
	maps.DeleteFunc(p.tests, func(_ string, tt *test) bool { return tt.done })
	if p.failed > 0 && len(p.tests) == 0 {
		return
	}
	if p.failed == 0 {
		p.failed++
	}
	fmt.Fprintf(t.out, "## %s failed\n%s", e.Package, p.output.String())
	for name, tt := range p.tests {
		fmt.Fprintf(t.out, "## unfinished: %s\n%s", name, tt.output.String())
	}
}

// close prints the closing lines. Packages that never ended (the command was killed)
// count as failed.
func (t *tally) close() {
	for name, p := range t.packages {
		fmt.Fprintf(t.out, "## %s did not end\n%s", name, p.output.String())
		t.passed, t.failed, t.skipped = t.passed+p.passed, t.failed+p.failed+1, t.skipped+p.skipped
	}
	for _, broker := range []string{"embedded", "kafka"} {
		c := t.brokers[broker]
		fmt.Fprintf(t.out, "on the broker %s: %d tests passed and %d failed\n", broker, c[0], c[1])
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
