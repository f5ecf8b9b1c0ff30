package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// tableName is a table as the catalog has it.
type tableName struct {
	schema, name string
}

func (t tableName) String() string { return t.schema + "." + t.name }
func (t tableName) quoted() string { return quoteTable(t.schema, t.name) }

// catalogTable is a table that can be published.
type catalogTable struct {
	tableName
	hasKey bool      // UPDATE and DELETE are possible when it is published
	root   tableName // of which it is a partition, itself if it is none
}

// fitPublication sees that the publication exists and holds the tables of the
// configuration, no more and no less: it creates or alters it if that is allowed, else it
// says what to do. What the publication holds is what is delivered: nothing is filtered
// out here, so that a table that is renamed goes on.
func (s *Source) fitPublication(ctx context.Context) error {
	sql, err := s.catalog.connect(ctx)
	if err != nil {
		return err
	}
	return s.fitPublicationOn(ctx, sql)
}

// fitPublicationOn is fitPublication over a connection, or in the transaction that is open
// there.
func (s *Source) fitPublicationOn(ctx context.Context, sql *pgx.Conn) error {
	if err := s.fit(ctx, sql, nil); err != nil {
		return err
	}
	if err := s.checkColumns(ctx, sql); err != nil {
		return err
	}
	return s.warnKeyless(ctx, sql)
}

// fit is fitPublication; with tolerate, errors about some of the tables, or all, go there
// first, and only what comes back ends it.
func (s *Source) fit(ctx context.Context, sql *pgx.Conn, tolerate func(error) error) error {
	exists, err := publicationExists(ctx, sql, s.cfg.Publication)
	if err != nil {
		return err
	}
	if tolerate != nil && !exists {
		return lost(hintPublication, "publication %q does not exist any more", s.cfg.Publication)
	}
	patterns := s.cfg.patterns() // as they are now
	if len(patterns) == 0 && exists {
		return nil
	}
	if len(patterns) == 0 && !s.cfg.CreatePublication {
		return s.noPublication(nil)
	}
	all, err := listTables(ctx, sql)
	if err != nil {
		return err
	}
	wanted, err := selectTables(all, patterns)
	if tolerate != nil {
		err = tolerate(err)
	}
	switch {
	case err != nil || len(wanted) == 0:
		return err
	case !exists:
		return s.createPublication(ctx, sql, wanted)
	}
	return s.alterPublication(ctx, sql, wanted, tolerate)
}

func publicationExists(ctx context.Context, sql *pgx.Conn, name string) (exists bool, err error) {
	err = sql.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", name).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for publication %q: %w", name, err)
	}
	return exists, nil
}

// listTables lists the tables that a publication can have: ordinary and partitioned ones
// whose changes are in the log, outside of the system's schemas.
func listTables(ctx context.Context, sql *pgx.Conn) ([]catalogTable, error) {
	const query = `SELECT n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text,
		c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND
			(i.indisprimary AND i.indimmediate AND c.relreplident = 'd' OR i.indisreplident AND c.relreplident = 'i'))
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid) JOIN pg_namespace rn ON rn.oid = r.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
		AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1, 2`
	rows, err := sql.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t catalogTable, err error) {
		err = row.Scan(&t.schema, &t.name, &t.root.schema, &t.root.name, &t.hasKey)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return tables, nil
}

// selectTables returns the tables that the patterns of the configuration name, also with an
// error about those that are not there.
func selectTables(all []catalogTable, patterns []pattern) ([]catalogTable, error) {
	if len(patterns) == 0 {
		patterns = []pattern{{"*", "*"}}
	}
	var wanted []catalogTable
	var missing []string
	for _, p := range patterns {
		found := false
		for _, t := range all {
			if p.matches(t.schema, t.name) {
				found = true
				if !slices.Contains(wanted, t) {
					wanted = append(wanted, t)
				}
			}
		}
		if !found && p.literal() {
			missing = append(missing, p.String())
		}
	}
	roots := slices.Clone(wanted) // with which their partitions come
	wanted = slices.DeleteFunc(wanted, func(t catalogTable) bool {
		return t.root != t.tableName && slices.ContainsFunc(roots, func(r catalogTable) bool { return r.tableName == t.root })
	})
	if len(missing) > 0 {
		return wanted, misconfigured("write schema.table as the database has it; names are case-sensitive. Views, unlogged and temporary tables have no changes in the log",
			"there is no table %s", strings.Join(missing, ", "))
	}
	if len(wanted) == 0 {
		return nil, misconfigured("correct the patterns, or create the tables first", "no table matches %s", joined(patterns))
	}
	return wanted, nil
}

func joined(patterns []pattern) string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}

// createPublication creates the publication, or says how its owner does.
func (s *Source) createPublication(ctx context.Context, sql *pgx.Conn, wanted []catalogTable) error {
	if !s.cfg.CreatePublication {
		return s.noPublication(wanted)
	}
	if err := refuseKeyless(wanted); err != nil {
		return err
	}
	statement := s.createStatement(wanted)
	if _, err := sql.Exec(ctx, statement); err != nil {
		return s.publicationError("create", err, statement)
	}
	s.log.Info("created the publication", "publication", s.cfg.Publication, "tables", len(wanted))
	return nil
}

func (s *Source) createStatement(tables []catalogTable) string {
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s", quoteIdent(s.cfg.Publication), quotedList(tables))
}

func quotedList(tables []catalogTable) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.quoted()
	}
	return strings.Join(names, ", ")
}

func (s *Source) noPublication(wanted []catalogTable) error {
	statement := fmt.Sprintf("CREATE PUBLICATION %s FOR ALL TABLES", quoteIdent(s.cfg.Publication))
	if len(wanted) > 0 {
		statement = s.createStatement(wanted)
	}
	return unfit("have the owner of the tables run: "+statement+";", "publication %q does not exist", s.cfg.Publication)
}

// publicationError says what the owner has to run if we may not.
func (s *Source) publicationError(verb string, err error, statement string) error {
	err = fmt.Errorf("%s publication %q: %w", verb, s.cfg.Publication, err)
	if sqlState(err) == stateNoPrivilege {
		return &Error{err, fmt.Sprintf("have the owner of the tables, who needs CREATE on the database, run: %s;", statement), true, codeEnvironment}
	}
	return err
}

// refuseKeyless refuses to publish tables whose UPDATEs and DELETEs the server would then
// refuse: that would break the application, not the capture.
func refuseKeyless(tables []catalogTable) error {
	keyless := keylessOf(tables)
	if len(keyless) == 0 {
		return nil
	}
	first := keyless[0].quoted()
	return misconfigured(fmt.Sprintf("add a primary key, or run ALTER TABLE %s REPLICA IDENTITY FULL; or leave the table out; or, if it is only ever inserted into, have its owner add it to the publication", first),
		"no key: once published, UPDATE and DELETE would fail on %s", names(keyless))
}

func names(tables []catalogTable) string {
	list := make([]string, len(tables))
	for i, t := range tables {
		list[i] = t.String()
	}
	return strings.Join(list, ", ")
}

// alterPublication adds and removes tables, so that it holds those that are wanted; with
// tolerate one by one, since a statement that fails for one table does nothing for any.
func (s *Source) alterPublication(ctx context.Context, sql *pgx.Conn, wanted []catalogTable, tolerate func(error) error) error {
	published, err := s.published(ctx, sql)
	if err != nil {
		return err
	}
	add, drop, err := s.differences(wanted, published)
	if tolerate == nil {
		if err == nil {
			err = s.alter(ctx, sql, "ADD", add)
		}
		if err == nil {
			err = s.alter(ctx, sql, "DROP", drop)
		}
		return err
	}
	if err := tolerate(err); err != nil {
		return err
	}
	for verb, tables := range map[string][]catalogTable{"ADD": add, "DROP": drop} {
		for _, t := range tables {
			if err := tolerate(s.alter(ctx, sql, verb, []catalogTable{t})); err != nil {
				return err
			}
		}
	}
	return nil
}

// differences returns the tables that the publication lacks, and those that it should not
// have; an error tells of such that cannot be taken out.
func (s *Source) differences(wanted []catalogTable, published *publishedTables) (add, drop []catalogTable, err error) {
	add, drop = published.difference(wanted)
	for _, t := range published.tables {
		if !published.wanted(wanted, t) && !published.isMember(t) {
			return add, drop, misconfigured("list that table too, or leave the list of tables empty, or use a publication of this capture's own",
				"publication %q is for all tables, or all of a schema, and so also holds %s", s.cfg.Publication, t)
		}
	}
	return add, drop, nil
}

func (s *Source) alterStatement(verb string, tables []catalogTable) string {
	return fmt.Sprintf("ALTER PUBLICATION %s %s TABLE %s", quoteIdent(s.cfg.Publication), verb, quotedList(tables))
}

func (s *Source) alter(ctx context.Context, sql *pgx.Conn, verb string, tables []catalogTable) error {
	if len(tables) == 0 {
		return nil
	}
	statement := s.alterStatement(verb, tables)
	if !s.cfg.CreatePublication {
		what := "does not hold"
		if verb == "DROP" {
			what = "also holds"
		}
		return unfit(fmt.Sprintf("have its owner run: %s; or correct the list of tables", statement),
			"publication %q %s %s", s.cfg.Publication, what, names(tables))
	}
	if verb == "ADD" {
		if err := refuseKeyless(tables); err != nil {
			return err
		}
	}
	if _, err := sql.Exec(ctx, statement); err != nil {
		return s.publicationError("alter", err, statement)
	}
	s.log.Info("altered the publication", "publication", s.cfg.Publication, "verb", verb, "tables", names(tables))
	return nil
}

// publishedTables is what a publication holds.
type publishedTables struct {
	members   []tableName               // named one by one
	tables    []tableName               // whose changes are published: of partitioned ones the partitions
	ancestors map[tableName][]tableName // the tables of which one of tables is a partition
}

// has says whether changes of t are published: as t, or as all of its partitions.
func (p *publishedTables) has(t tableName) bool {
	return slices.Contains(p.members, t) ||
		slices.ContainsFunc(p.tables, func(other tableName) bool { return p.covers(t, other) })
}

// covers says whether other is t or one of its partitions.
func (p *publishedTables) covers(t, other tableName) bool {
	return t == other || slices.Contains(p.ancestors[other], t)
}

// wanted says whether t is one of tables, or a partition of one.
func (p *publishedTables) wanted(tables []catalogTable, t tableName) bool {
	return slices.ContainsFunc(tables, func(w catalogTable) bool { return p.covers(w.tableName, t) })
}

// difference is what has to be added and dropped for the publication to hold wanted.
func (p *publishedTables) difference(wanted []catalogTable) (add, drop []catalogTable) {
	for _, t := range wanted {
		if !p.has(t.tableName) {
			add = append(add, t)
		}
	}
	for _, t := range p.members {
		if !p.wanted(wanted, t) {
			drop = append(drop, catalogTable{tableName: t})
		}
	}
	return add, drop
}

// isMember says whether t is named, or a table of which it is a partition.
func (p *publishedTables) isMember(t tableName) bool {
	return slices.ContainsFunc(p.members, func(m tableName) bool { return p.covers(m, t) })
}

// published reads what the publication holds, by whichever of its clauses.
func (s *Source) published(ctx context.Context, sql *pgx.Conn) (*publishedTables, error) {
	const query = `SELECT true, n.nspname::text, c.relname::text, NULL, NULL
		FROM pg_publication_rel r JOIN pg_publication b ON b.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE b.pubname = $1
		UNION ALL
		SELECT false, t.schemaname::text, t.tablename::text, an.nspname::text, a.relname::text
		FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
		JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
		LEFT JOIN LATERAL pg_partition_ancestors(c.oid) p(oid) ON p.oid <> c.oid
		LEFT JOIN pg_class a ON a.oid = p.oid LEFT JOIN pg_namespace an ON an.oid = a.relnamespace
		WHERE t.pubname = $1`
	rows, err := sql.Query(ctx, query, s.cfg.Publication)
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", s.cfg.Publication, err)
	}
	p := &publishedTables{ancestors: make(map[tableName][]tableName)}
	var member bool
	var t tableName
	var schema, name *string
	_, err = pgx.ForEachRow(rows, []any{&member, &t.schema, &t.name, &schema, &name}, func() error {
		switch {
		case member:
			p.members = append(p.members, t)
		case !slices.Contains(p.tables, t):
			p.tables = append(p.tables, t)
		}
		if schema != nil && name != nil {
			p.ancestors[t] = append(p.ancestors[t], tableName{*schema, *name})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", s.cfg.Publication, err)
	}
	return p, nil
}

// keylessPublished lists the published tables whose rows cannot be updated.
func (s *Source) keylessPublished(ctx context.Context, sql *pgx.Conn) ([]catalogTable, error) {
	published, err := s.published(ctx, sql)
	if err != nil {
		return nil, err
	}
	all, err := listTables(ctx, sql)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(keylessOf(all), func(t catalogTable) bool { return !slices.Contains(published.tables, t.tableName) }), nil
}

// warnKeyless says which published tables cannot be updated.
func (s *Source) warnKeyless(ctx context.Context, sql *pgx.Conn) error {
	keyless, err := s.keylessPublished(ctx, sql)
	if err == nil && len(keyless) > 0 {
		s.log.Warn("published tables without a key: the server refuses their UPDATEs and DELETEs", "tables", names(keyless),
			"hint", "add a primary key, or ALTER TABLE … REPLICA IDENTITY FULL")
	}
	return err
}
