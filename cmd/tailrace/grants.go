package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	capturepg "github.com/tailrace/tailrace/capture/postgres"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	sinkpg "github.com/tailrace/tailrace/sinks/postgres"
)

// grantFlags are what grants is asked for.
type grantFlags struct {
	engine, purpose, name, role, publication, schema string
	tables                                           []string
	existing, undo                                   bool
}

// granted is the result of grants.
type granted struct {
	Engine string   `json:"engine"`
	For    string   `json:"for"`
	Role   string   `json:"role"`
	SQL    []string `json:"sql"`
	Undo   []string `json:"undo"`
}

// step is a statement of either package.
type step struct{ Why, Do, Undo string }

// grantsCommand prints the rights that a capture or a sink needs.
func (c *cli) grantsCommand() *cobra.Command {
	var f grantFlags
	cmd := &cobra.Command{
		Use:   "grants",
		Short: "Print the SQL that gives a role what a capture or a sink needs, and nothing more",
		Long: `Print the SQL that gives a role what a capture or a sink needs, and nothing more; with
--undo, what takes it back. Nothing is connected to: run it as a superuser in the captured
database, or the target, with an interactive client that lets you set the password
(\password ROLE in psql), since passwords do not belong on a command line.

Role, tables, publication and schema come from flags. What is not given comes from the
configuration: that of its only capture (or sink, with --for sink), or the one that --name
names.`,
		Example: `  tailrace grants --role tailrace --tables public.orders,public.customers --publication shop | psql shop
  tailrace grants -f tailrace.yaml --for sink --undo`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.completeGrants(cmd, &f); err != nil {
				return err
			}
			steps, err := grantSteps(f)
			if err != nil {
				return err
			}
			return c.writeGrants(cmd, f, steps)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.engine, "engine", "postgres", "kind of database: postgres")
	flags.StringVar(&f.purpose, "for", "capture", "capture or sink")
	flags.StringVar(&f.name, "name", "", "capture or sink of the configuration")
	flags.StringVar(&f.role, "role", "", "role to create")
	flags.BoolVar(&f.existing, "existing", false, "the role is there already: it is neither created nor dropped")
	flags.StringSliceVar(&f.tables, "tables", nil, "schema.table, with * for any characters, of the source")
	flags.StringVar(&f.publication, "publication", "", "publication to create with the tables (capture)")
	flags.StringVar(&f.schema, "schema", "", "schema that all tables go to (sink)")
	flags.BoolVar(&f.undo, "undo", false, "print what takes it back")
	return cmd
}

// completeGrants checks the flags and takes what they leave out from the configuration.
func (c *cli) completeGrants(cmd *cobra.Command, f *grantFlags) error {
	switch {
	case f.engine != "postgres":
		return usagef(cmd, "unknown engine %q: postgres", f.engine)
	case f.purpose != "capture" && f.purpose != "sink":
		return usagef(cmd, "unknown purpose %q: capture or sink", f.purpose)
	case f.purpose == "capture" && f.schema != "":
		return usagef(cmd, "--schema is for sinks")
	case f.purpose == "sink" && f.publication != "":
		return usagef(cmd, "--publication is for captures")
	}
	complete := f.role != "" && (len(f.tables) > 0 || f.schema != "")
	if complete && f.name == "" && !cmd.Flags().Changed("file") {
		return nil
	}
	cfg, err := c.load()
	if err != nil {
		if !cmd.Flags().Changed("file") && f.role == "" {
			return usagef(cmd, "give --role and --tables, or a configuration with -f")
		}
		return err
	}
	if f.purpose == "sink" {
		return f.fromSink(cmd, cfg)
	}
	return f.fromCapture(cmd, cfg)
}

// pick returns the place of the entry that name names: the only one for "".
func pick(cmd *cobra.Command, what, name string, names []string) (int, error) {
	i := slices.Index(names, name)
	switch {
	case i >= 0:
		return i, nil
	case name != "":
		return 0, usagef(cmd, "the configuration has no %s %q: it has %s", what, name, or(strings.Join(names, ", "), "none"))
	case len(names) == 1:
		return 0, nil
	case len(names) == 0:
		return 0, usagef(cmd, "the configuration has no %s", what)
	}
	return 0, usagef(cmd, "the configuration has several %ss: name one with --name, of %s", what, strings.Join(names, ", "))
}

// fromCapture takes what is missing from a capture of the configuration.
func (f *grantFlags) fromCapture(cmd *cobra.Command, cfg *config.Config) error {
	var names []string
	for i := range cfg.Captures {
		names = append(names, cfg.Captures[i].Name)
	}
	i, err := pick(cmd, "capture", f.name, names)
	if err != nil {
		return err
	}
	p := cfg.Captures[i].Postgres
	f.role, f.publication = or(f.role, userOf(p.URL)), or(f.publication, p.Publication)
	if len(f.tables) == 0 {
		f.tables = p.Tables
	}
	if len(f.tables) == 0 {
		f.tables = []string{"*.*"} // every table, as the capture takes it
	}
	return f.named(cmd)
}

// fromSink takes what is missing from a sink of the configuration.
func (f *grantFlags) fromSink(cmd *cobra.Command, cfg *config.Config) error {
	var names []string
	for i := range cfg.Sinks {
		names = append(names, cfg.Sinks[i].Name)
	}
	i, err := pick(cmd, "sink", f.name, names)
	if err != nil {
		return err
	}
	s := &cfg.Sinks[i]
	if s.Postgres == nil {
		return usagef(cmd, "sink %q is no database", s.Name)
	}
	f.role, f.schema = or(f.role, userOf(s.Postgres.URL)), or(f.schema, s.Postgres.Schema)
	for i := range cfg.Captures {
		if from := &cfg.Captures[i]; len(f.tables) == 0 && from.Prefix == cfg.Prefix(s.From) {
			f.tables = from.Postgres.Tables
		}
	}
	return f.named(cmd)
}

// named checks that there is a role: a URL may leave it to the machine's user.
func (f *grantFlags) named(cmd *cobra.Command) error {
	if f.role == "" {
		return usagef(cmd, "the configuration's URL names no user: give --role")
	}
	return nil
}

// userOf is the user that a connection URL names; "" if it names none.
func userOf(s config.Secret) string {
	u, err := url.Parse(s.Reveal())
	if err != nil || u.User == nil {
		return ""
	}
	return u.User.Username()
}

// grantSteps asks the package of the engine.
func grantSteps(f grantFlags) (out []step, err error) {
	if f.purpose == "capture" {
		steps, err := capturepg.Grants{Role: f.role, Existing: f.existing, Tables: f.tables, Publication: f.publication}.Statements()
		for _, s := range steps {
			out = append(out, step(s))
		}
		return out, err
	}
	steps, err := sinkpg.Grants{Role: f.role, Existing: f.existing, Tables: f.targets()}.Statements()
	for _, s := range steps {
		out = append(out, step(s))
	}
	return out, err
}

// targets are the tables of the target that a sink writes to.
func (f *grantFlags) targets() []string {
	if f.schema == "" {
		return f.tables
	}
	if len(f.tables) == 0 {
		return []string{f.schema + ".*"}
	}
	out := make([]string, len(f.tables))
	for i, t := range f.tables {
		_, name, _ := strings.Cut(t, ".")
		out[i] = f.schema + "." + name
	}
	return out
}

// writeGrants writes the statements, or what takes them back.
func (c *cli) writeGrants(cmd *cobra.Command, f grantFlags, steps []step) error {
	g := granted{Engine: f.engine, For: f.purpose, Role: f.role, SQL: []string{}, Undo: []string{}}
	for _, s := range steps {
		if s.Do != "" {
			g.SQL = append(g.SQL, s.Do)
		}
	}
	for _, s := range slices.Backward(steps) {
		if s.Undo != "" {
			g.Undo = append(g.Undo, s.Undo)
		}
	}
	if c.format == "json" {
		return c.answer(cmd, fmt.Sprintf("%s for %s, %s to undo", count(len(g.SQL), "statement"), f.role, count(len(g.Undo), "statement")), g, table{})
	}
	head := fmt.Sprintf("-- What role %s needs to %s. Run it as a superuser, in that database.", f.role, map[string]string{"capture": "capture", "sink": "apply changes"}[f.purpose])
	if f.undo {
		fmt.Fprintf(c.out, "-- Takes back what `tailrace grants` gave to role %s.\n", oneLine(f.role))
		if f.purpose == "capture" {
			fmt.Fprintln(c.out, "-- The capture's slot is not dropped: SELECT slot_name FROM pg_replication_slots;")
		}
		for _, s := range g.Undo {
			fmt.Fprintln(c.out, printable(s)+";")
		}
		return nil
	}
	fmt.Fprintln(c.out, oneLine(head))
	for _, s := range steps {
		if s.Do == "" {
			continue
		}
		if s.Why != "" {
			fmt.Fprintln(c.out, "-- "+oneLine(s.Why))
		}
		fmt.Fprintln(c.out, printable(s.Do)+";")
	}
	return nil
}
