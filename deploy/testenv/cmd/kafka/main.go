// Kafka starts one node of Apache Kafka on loopback, runs a command with the node's
// address in the environment variable TAILRACE_TEST_KAFKA, and exits as the command did.
// Without a command it prints the address and runs until it is interrupted.
//
//	go run ./deploy/testenv/cmd/kafka [-port 9092] [command [argument…]]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

func main() {
	port := flag.Int("port", 0, "port of the node; 0: a free one")
	flag.Parse()
	code, err := run(*port, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		code = 1
	}
	os.Exit(code)
}

// run returns the command's exit code.
func run(port int, command []string) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	node, err := testenv.StartKafka(start, testenv.KafkaOptions{Port: port})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if len(command) == 0 {
		fmt.Println(node.Addr())
		<-ctx.Done()
		return 0, nil
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), testenv.KafkaVariable+"="+node.Addr())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}
