package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// cli is one command line: where it writes, and its global flags.
type cli struct {
	out, err io.Writer
	env      func(string) (string, bool)
	exit     func(int) // ends the process at once

	file      string
	format    string // table or json
	overrides config.Overrides
}

// root builds the tree of commands.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "tailrace",
		Short:             "Tails the logs of databases and writes every change as Avro onto Kafka topics",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return c.prepare(cmd) },
	}
	group(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%w", err) })
	f := root.PersistentFlags()
	f.StringVarP(&c.file, "file", "f", "tailrace.yaml", "configuration file")
	f.StringVarP(&c.format, "output", "o", "table", "how answers are written: table or json")
	f.StringSliceVar(&c.overrides.Brokers, "brokers", nil, "host:port of Kafka brokers, instead of the configuration's")
	f.StringVar(&c.overrides.RegistryURL, "registry-url", "", "address of the schema registry, instead of the configuration's")
	f.StringVar(&c.overrides.HTTPListen, "http-listen", "", "loopback address of metrics, health and status")
	f.StringVar(&c.overrides.LogLevel, "log-level", "", "debug, info, warn or error")
	f.StringVar(&c.overrides.LogFormat, "log-format", "", "auto, text or json")
	root.AddCommand(c.runCommand(), c.demoCommand(), c.topicCommand(), c.captureCommand(), c.backfillCommand(), c.dlqCommand(), c.sinkCommand(), c.auditCommand(), c.doctorCommand(), c.grantsCommand(), c.lagCommand(), c.configCommand(), c.versionCommand())
	return root
}

// group makes cmd a command that only holds others: alone it shows its help, with a word
// that is no command it fails and names the nearest.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := usagef(cmd, "unknown command %q", args[0])
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err.hint = fmt.Sprintf("did you mean %q?", near[0])
		}
		return err
	}
	return cmd
}

// prepare takes flags that were not given from the environment and checks the global ones.
func (c *cli) prepare(cmd *cobra.Command) error {
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "TAILRACE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := c.env(name)
		if !ok || value == "" || f.Changed || cmd.InheritedFlags().Lookup(f.Name) == nil {
			return
		}
		if err := f.Value.Set(value); err != nil && failed == nil {
			failed = usagef(cmd, "environment variable %s: %w", name, err)
		}
	})
	switch {
	case failed != nil:
		return failed
	case c.format != "table" && c.format != "json":
		given := c.format
		c.format = "table"
		return usagef(cmd, "unknown output %q: table or json", given)
	case c.overrides.LogLevel != "" && !oneOf(c.overrides.LogLevel, "debug", "info", "warn", "error"):
		return usagef(cmd, "unknown log level %q: debug, info, warn or error", c.overrides.LogLevel)
	case c.overrides.LogFormat != "" && !oneOf(c.overrides.LogFormat, "auto", "text", "json"):
		return usagef(cmd, "unknown log format %q: auto, text or json", c.overrides.LogFormat)
	}
	return nil
}

// oneOf says whether s is one of list.
func oneOf(s string, list ...string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// load reads the configuration file.
func (c *cli) load() (*config.Config, error) { return config.Load(c.file, c.overrides) }

// loadOrFlags reads the configuration file, unless flags say all that a client needs and
// no file was asked for.
func (c *cli) loadOrFlags(cmd *cobra.Command) (*config.Config, error) {
	_, inEnv := c.env("TAILRACE_FILE")
	if len(c.overrides.Brokers) > 0 && !cmd.Flags().Changed("file") && !inEnv {
		return config.FromOverrides(c.overrides)
	}
	return c.load()
}

// logger returns the log on standard error as the configuration wants it.
func (c *cli) logger(l config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // the configuration is valid: this is for an empty one
	}
	tty := terminal(c.err)
	if l.Format == "json" || l.Format != "text" && !tty {
		return slog.New(slog.NewJSONHandler(c.err, &slog.HandlerOptions{Level: level}))
	}
	_, plain := c.env("NO_COLOR")
	return slog.New(tint.NewTextHandler(c.err, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: plain || !tty}))
}

// terminal says whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
