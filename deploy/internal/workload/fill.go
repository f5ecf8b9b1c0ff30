package workload

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// filledVersion is the version of the rows that Fill makes.
const filledVersion = 1

// fill notes that every other key has a row of Fill.
func (k *keys) fill() {
	for i := 0; i < keysPerTable; i += 2 {
		k.live[i], k.ver[i] = true, filledVersion
	}
}

// Fill gives the tables with keys rows: every other row of those that writers change, and
// more that nobody does, which stand between them: still in the last table, half as many more
// in each before it, so that reading one takes longer than reading another.
func Fill(ctx context.Context, url string, writers, still int) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	share := 4 // halves
	for i := range Tables {
		t := &Tables[i]
		if len(t.Key) == 0 || t.Hot {
			continue
		}
		n := still * share / 2 / writers
		share--
		var rows [][]any
		for w := range writers {
			for i := 0; i < keysPerTable; i += 2 {
				rows = append(rows, t.filled(w, i))
			}
			for i := range n {
				rows = append(rows, t.filled(w, keysPerTable+i))
			}
		}
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{t.Name}, t.columns(), pgx.CopyFromRows(rows)); err != nil {
			return fmt.Errorf("fill %s: %w", t.Name, err)
		}
	}
	return nil
}

// filled is the row of a writer's i-th key.
func (t *Table) filled(writer, i int) []any {
	k := keys{table: t}
	key := k.values(writer, i)
	row := append(key[:len(key):len(key)], int32(writer), int64(0), int64(filledVersion), Body(t.Name, KeyText(key), filledVersion))
	if t.Note {
		row = append(row, Note(KeyText(key), filledVersion))
	}
	return row
}

// columns are the names of a table's columns.
func (t *Table) columns() []string {
	var out []string
	for _, c := range t.Key {
		out = append(out, c.Name)
	}
	out = append(out, "writer", "wseq", "ver", "body")
	if t.Note {
		out = append(out, "note")
	}
	return out
}

// Rows reads all rows of the tables with keys, as the judge compares them.
func Rows(ctx context.Context, url, prefix string) ([]judge.Row, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var out []judge.Row
	for i := range Tables {
		t := &Tables[i]
		if len(t.Key) == 0 {
			continue
		}
		names := pgx.Identifier{t.Name}.Sanitize()
		rows, err := conn.Query(ctx, "SELECT * FROM "+names)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				rows.Close()
				return nil, err
			}
			out = append(out, t.row(prefix, values))
		}
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Name, err)
		}
	}
	return out, nil
}

// row is a row of the database for the judge.
func (t *Table) row(prefix string, values []any) judge.Row {
	k := len(t.Key)
	r := judge.Row{Topic: prefix + ".public." + t.Name, Key: KeyText(values[:k]), Content: Content(values[k], values[k+1], values[k+2], values[k+3])}
	r.Ver, _ = values[k+2].(int64)
	if t.Note {
		note, _ := values[k+4].(string)
		r.Note = NoteSum(note)
	}
	return r
}

// Content is the text of a row's columns writer, wseq, ver and body.
func Content(writer, wseq, ver, body any) string {
	return fmt.Sprint(writer, " ", wseq, " ", ver, " ", body)
}

// NoteSum stands for a note's text; 0 for none.
func NoteSum(note string) uint64 {
	if note == "" {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(note))
	return h.Sum64()
}
