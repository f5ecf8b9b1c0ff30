package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// configCommand holds the commands about the configuration file.
func (c *cli) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "config", Short: "Check the configuration, print its schema"})
	cmd.AddCommand(c.configValidateCommand(), &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  args(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.configSchema(cmd) },
	})
	return cmd
}

// validation is the result of config validate.
type validation struct {
	File     string           `json:"file"`
	Captures int              `json:"captures"`
	Sinks    int              `json:"sinks"`
	Findings []config.Finding `json:"findings"`
}

// configValidateCommand checks the file, with every mistake at once.
func (c *cli) configValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and show every mistake in it",
		Long:  "Check the configuration and show every mistake in it. References (${env:X}, ${file:/path})\nare looked up. Nothing is connected to.",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			var bad *config.Error
			if errors.As(err, &bad) && c.format == "json" {
				f := c.describe(err, app.ExitUsage)
				f.Findings = nil // they are the result
				result := validation{File: c.file, Findings: bad.Findings}
				return errors.Join(c.writeJSON(envelope{commandName(cmd), false, f.Message, result, f}), &answeredError{err})
			}
			if err != nil {
				return err
			}
			broker := "Kafka"
			if cfg.Broker.Embedded != nil {
				broker = "the embedded broker"
			}
			summary := fmt.Sprintf("%s is valid: %s on %s", c.file, parts(cfg), broker)
			return c.answer(cmd, summary, validation{c.file, len(cfg.Captures), len(cfg.Sinks), []config.Finding{}}, table{})
		},
	}
}

// parts counts what a configuration has.
func parts(cfg *config.Config) string {
	var out []string
	if n := len(cfg.Captures); n > 0 {
		out = append(out, count(n, "capture"))
	}
	if n := len(cfg.Sinks); n > 0 {
		out = append(out, count(n, "sink"))
	}
	return strings.Join(out, " and ")
}

// configSchema prints the schema: as it is, or in an envelope if JSON was asked for.
func (c *cli) configSchema(cmd *cobra.Command) error {
	text, err := config.Schema()
	if err != nil {
		return fmt.Errorf("make configuration schema: %w", err)
	}
	if c.format == "json" {
		return c.answer(cmd, config.SchemaID, json.RawMessage(text), table{})
	}
	_, err = fmt.Fprintln(c.out, string(text))
	return err
}
