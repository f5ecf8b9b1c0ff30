package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/audit"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// auditCommand holds the commands about the audit log.
func (c *cli) auditCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "audit",
		Short: "See which decisions people took, and check that none was changed",
		Long: `See which decisions people took, and check that none was changed or taken out. The log is
the topic __tailrace.audit; each entry carries the hash of the one before it. Keep the last
hash elsewhere: who has it finds out whether all before it is as it was.`,
	})
	cmd.AddCommand(c.auditListCommand(), c.auditVerifyCommand())
	return cmd
}

// auditListCommand shows the entries.
func (c *cli) auditListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the decisions, the oldest first",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.resolve(cmd, func(ctx context.Context, t *app.Tools, _ *config.Config) error {
				log, err := audit.Read(ctx, t.Client())
				if err != nil {
					return err
				}
				out := table{head: []string{"SEQ", "AT", "ID", "BY", "ACTION", "OF", "PHASE", "REASON"}}
				for _, e := range log.Entries {
					out.rows = append(out.rows, []string{strconv.FormatUint(e.Seq, 10), e.At.UTC().Format(time.RFC3339), e.ID, e.By, e.Action, e.Of, e.Phase, or(or(e.Reason, e.Error), "-")})
				}
				entries := log.Entries
				if entries == nil {
					entries = []audit.Chained{}
				}
				return c.answer(cmd, count(len(entries), "entry"), entries, out)
			})
		},
	}
}

// verified is the result of verify.
type verified struct {
	Entries int    `json:"entries"`
	Head    string `json:"head"` // hash of the last entry
}

// auditVerifyCommand checks the chain.
func (c *cli) auditVerifyCommand() *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the log is whole, and print its last hash; exit code 4 if it is not",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.resolve(cmd, func(ctx context.Context, t *app.Tools, _ *config.Config) error {
				log, err := audit.Read(ctx, t.Client())
				out := verified{len(log.Entries), log.Head()}
				if err == nil && head != "" && !log.Has(head) {
					err = &audit.BrokenError{Offset: 0, Why: "it has no entry with the hash " + head}
				}
				if audit.IsBroken(err) {
					failed := &checkError{err.Error()}
					if c.format == "json" {
						return c.refuse(cmd, out, failed)
					}
					return failed
				}
				if err != nil {
					return err
				}
				return c.answer(cmd, count(out.Entries, "entry")+", whole; the last hash is "+or(out.Head, "none"), out, table{})
			})
		},
	}
	cmd.Flags().StringVar(&head, "hash", "", "a hash that was the last one once: it must be there still")
	return cmd
}
