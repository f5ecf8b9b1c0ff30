package postgres

import (
	"fmt"
	"strings"
)

// The statements of a plan. Columns are written in the plan's order; mask says which of them
// are set, nil: all.

func (p *plan) names(columns []int) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = p.columns[c].quoted
	}
	return strings.Join(names, ", ")
}

func (p *plan) all() []int {
	all := make([]int, len(p.columns))
	for i := range all {
		all[i] = i
	}
	return all
}

func (p *plan) isKey(column int) bool {
	for _, k := range p.key {
		if k == column {
			return true
		}
	}
	return false
}

// insert returns an INSERT up to its source of rows.
func (p *plan) insert() string {
	overriding := ""
	if p.target.identity {
		overriding = " overriding system value"
	}
	return fmt.Sprintf("insert into %s (%s)%s ", p.quoted, p.names(p.all()), overriding)
}

// onConflict returns what makes an INSERT an upsert.
func (p *plan) onConflict() string {
	if len(p.key) == 0 {
		return ""
	}
	var set []string
	for i := range p.columns {
		if !p.isKey(i) && !p.columns[i].fixed {
			set = append(set, fmt.Sprintf("%s = excluded.%s", p.columns[i].quoted, p.columns[i].quoted))
		}
	}
	if len(set) == 0 {
		return fmt.Sprintf(" on conflict (%s) do nothing", p.names(p.key))
	}
	return fmt.Sprintf(" on conflict (%s) do update set %s", p.names(p.key), strings.Join(set, ", "))
}

// upsertRow takes the columns as parameters.
func (p *plan) upsertRow() string {
	return p.insert() + "values (" + parameters(1, len(p.columns)) + ")" + p.onConflict()
}

// upsertStage takes the rows of a temporary table.
func (p *plan) upsertStage(stage string) string {
	return p.insert() + "select " + p.names(p.all()) + " from " + stage + p.onConflict()
}

// updateStage sets the columns in set from the rows of a temporary table.
func (p *plan) updateStage(stage string, set []int) string {
	var sets []string
	for _, c := range set {
		sets = append(sets, fmt.Sprintf("%s = s.%s", p.columns[c].quoted, p.columns[c].quoted))
	}
	return fmt.Sprintf("update %s t set %s from %s s where %s", p.quoted, strings.Join(sets, ", "), stage, p.sameKey())
}

// updateRow takes the columns in set as parameters, then the key.
func (p *plan) updateRow(set []int) string {
	var sets []string
	for i, c := range set {
		sets = append(sets, fmt.Sprintf("%s = $%d", p.columns[c].quoted, i+1))
	}
	return fmt.Sprintf("update %s set %s where %s", p.quoted, strings.Join(sets, ", "), p.keyIs(len(set)+1))
}

// deleteStage deletes the rows whose keys are in a temporary table.
func (p *plan) deleteStage(stage string) string {
	return fmt.Sprintf("delete from %s t using %s s where %s", p.quoted, stage, p.sameKey())
}

// deleteRow takes the key as parameters.
func (p *plan) deleteRow() string {
	return fmt.Sprintf("delete from %s where %s", p.quoted, p.keyIs(1))
}

// deleteWhole deletes one row that has these values; of a table without a key. Not every
// type has an equality, every one has a text.
func (p *plan) deleteWhole() string {
	var same []string
	for i := range p.columns {
		same = append(same, fmt.Sprintf("%s::text is not distinct from (select (s.%s)::text from %s s)", p.columns[i].quoted, p.columns[i].quoted, p.stage))
	}
	return fmt.Sprintf("delete from %s where ctid = (select ctid from %s where %s limit 1)", p.quoted, p.quoted, strings.Join(same, " and "))
}

// moveRow gives a row another key: the new one, then the old one as parameters.
func (p *plan) moveRow() string {
	var sets []string
	for i, k := range p.key {
		sets = append(sets, fmt.Sprintf("%s = $%d", p.columns[k].quoted, i+1))
	}
	return fmt.Sprintf("update %s set %s where %s", p.quoted, strings.Join(sets, ", "), p.keyIs(len(p.key)+1))
}

func (p *plan) sameKey() string {
	var same []string
	for _, k := range p.key {
		same = append(same, fmt.Sprintf("t.%s = s.%s", p.columns[k].quoted, p.columns[k].quoted))
	}
	return strings.Join(same, " and ")
}

// keyIs compares the key with parameters from the n-th on.
func (p *plan) keyIs(n int) string {
	var same []string
	for i, k := range p.key {
		same = append(same, fmt.Sprintf("%s = $%d", p.columns[k].quoted, n+i))
	}
	return strings.Join(same, " and ")
}

func parameters(from, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", from+i)
	}
	return b.String()
}
