// Count runs test commands one after the other, each `go test -json …`, shows their
// progress by package and their failures in full, and closes with one line:
//
//	N passed, N failed, N skipped
//
// Each argument is one command, its words parted by spaces. A test with subtests is not
// counted, its subtests are; so is a package that fails without a failing test of its own
// (it does not build, or its process dies). Tests with a path element "embedded" or "kafka"
// are also counted by that broker.
//
// Exit code: that of the first command that failed, 1 if only the count says so, else 0.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	code := 0
	t := newTally(os.Stdout)
	for _, command := range os.Args[1:] {
		fmt.Println("==", command)
		c, err := run(strings.Fields(command), t)
		if err != nil {
			fmt.Fprintln(os.Stderr, "count:", err)
			c = 1
		}
		if code == 0 {
			code = c
		}
	}
	t.close()
	if code == 0 && (t.failed > 0 || t.passed == 0) {
		code = 1
	}
	os.Exit(code)
}

// run returns the command's exit code.
func run(words []string, t *tally) (int, error) {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	readErr := t.read(out)
	err = cmd.Wait()
	if cmd.ProcessState.Exited() && readErr == nil {
		return cmd.ProcessState.ExitCode(), nil
	}
	if readErr != nil {
		return 0, readErr
	}
	return 0, err
}
