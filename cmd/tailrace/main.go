package main

import (
	"io"
	"os"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it executes one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{out: stdout, err: stderr, env: os.LookupEnv, exit: os.Exit}
	root := c.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return app.ExitOK
	}
	return c.fail(cmd, err)
}
