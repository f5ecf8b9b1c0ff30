package samples

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailrace/tailrace/deploy/internal/topics"
)

// traces are what a sample leaves, by place: records of all topics as they are (keys, values
// and headers; schemas, positions, state and dead letters are records too), the same
// decoded, the log, and what HTTP tells.
func (s *sample) traces() map[string]string {
	s.Helper()
	out := map[string]string{"log": s.Log(math.MaxInt32)}
	reader, err := topics.NewReader(s.env["BROKER_LISTEN"], "")
	if err != nil {
		s.Fatal(err)
	}
	defer reader.Close()
	if err := reader.To(s.Context(), func(r *kgo.Record) error {
		out["topic "+r.Topic] += fmt.Sprintf("%s %s %s\n", r.Key, r.Value, r.Headers)
		return nil
	}); err != nil {
		s.Fatal(err)
	}
	var list struct {
		Result struct{ Topics []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(s.command(0, "topic", "list", "-o", "json")), &list); err != nil || len(list.Result.Topics) == 0 {
		s.Fatalf("topics %v, %v", list, err)
	}
	for _, t := range list.Result.Topics {
		out["decoded "+t.Name] = s.command(0, "topic", "tail", t.Name, "--to-end", "-o", "json")
	}
	out["status"] = s.command(0, "capture", "status", "-o", "json")
	return out
}

// places are the traces, the broker's files and a target.
func (s *sample) places(target string) map[string]string {
	s.Helper()
	out := s.traces()
	out["target"], out["disk"] = s.dump(target), s.disk()
	return out
}

// dump is every row of every table of a database, as text.
func (s *sample) dump(variable string) string {
	s.Helper()
	tables, err := s.rows(variable, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)
	if err != nil {
		s.Fatal(err)
	}
	var out strings.Builder
	for table := range strings.SplitSeq(tables, "\n") {
		rows, err := s.rows(variable, "SELECT t.* FROM "+table+" t")
		if err != nil {
			s.Fatal(err)
		}
		fmt.Fprintln(&out, table)
		fmt.Fprintln(&out, rows)
	}
	return out.String()
}

// disk is what the files of the embedded broker hold.
func (s *sample) disk() string {
	s.Helper()
	var out strings.Builder
	err := filepath.WalkDir(filepath.Join(s.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out.Write(b)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return out.String()
}

// found lists which values are where.
func found(places map[string]string, values []string) (sightings []string) {
	for where, text := range places {
		for _, v := range values {
			if strings.Contains(text, v) {
				sightings = append(sightings, fmt.Sprintf("%q in %s", v, where))
			}
		}
	}
	slices.Sort(sightings)
	return sightings
}

// keeps sees that values of the source are in nothing that leaves it, and that values which
// may be seen are found by the same search: in the source, in topics as they are and
// decoded, and in the target.
func (s *sample) keeps(source, target string, secret, seen []string) {
	s.Helper()
	places := s.places(target)
	for _, sighting := range found(places, secret) {
		s.Error(sighting)
	}
	origin := map[string]string{"source": s.dump(source)}
	for _, v := range append(slices.Clone(secret), seen...) {
		if len(found(origin, []string{v})) == 0 {
			s.Errorf("%q is not in the source: looking for it proves nothing", v)
		}
	}
	for _, v := range seen {
		sightings := found(places, []string{v})
		for _, where := range []string{"in topic ", "in decoded ", "in target"} {
			if !slices.ContainsFunc(sightings, func(s string) bool { return strings.Contains(s, where) }) {
				s.Errorf("%q is not seen %s, but in %v", v, where, sightings)
			}
		}
	}
}
