package postgres

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMatchStars(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "ac", true}, {"ab*bc", "abc", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "aXcYb", false}, {"**", "x", true}, {"a.c", "abc", false},
	} {
		if matchStars(test.pattern, test.s) != test.want {
			t.Errorf("%q matches %q: want %t", test.pattern, test.s, test.want)
		}
	}
}

func FuzzMatchStars(f *testing.F) {
	f.Add("a*b*c", "aabbcc")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re, err := regexp.Compile(`(?s)\A` + strings.Join(parts, ".*") + `\z`)
		if err != nil || strings.ToValidUTF8(s, "") != s {
			return
		}
		if got := matchStars(pattern, s); got != re.MatchString(s) {
			t.Errorf("%q matches %q: %t", pattern, s, got)
		}
	})
}

func TestMetricsOutliveARun(t *testing.T) {
	r := prometheus.NewRegistry()
	for range 2 {
		s, err := New(Config{URL: "postgres://u@h/d", Slot: "s", Publication: "p", Name: "n", Registerer: r})
		if err != nil {
			t.Fatal(err)
		}
		s.metrics.read(5)
	}
	families, err := r.Gather()
	if err != nil || len(families) != 2 || families[1].Metric[0].Counter.GetValue() != 10 {
		t.Errorf("%v, %v", families, err)
	}
}

// Whatever the text, the server reads the quoted form as the text.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"a", `a"b`, "it's", `back\slash`, "nul\x00", strings.Repeat("x", 63), "ü", `";DROP TABLE t;--`, `\'`} {
		f.Add(s)
	}
	conn, err := (&Config{URL: testenv.SharedPostgres(f).AdminURL("postgres")}).connectSQL(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
		if want == "" || len(want) > maxNameLength {
			return
		}
		for _, conforming := range []string{"on", "off"} {
			results, err := conn.PgConn().Exec(context.Background(), "SET standard_conforming_strings = "+conforming+"; SET escape_string_warning = off; SELECT "+
				quoteLiteral(want)+" AS "+quoteIdent(want)).ReadAll()
			if err != nil {
				t.Fatalf("%q: %v", want, err)
			}
			last := results[len(results)-1]
			if string(last.Rows[0][0]) != want || last.FieldDescriptions[0].Name != want {
				t.Errorf("%q came back as %q named %q", want, last.Rows[0][0], last.FieldDescriptions[0].Name)
			}
		}
	})
}

// The two ways into the replication grammar: a publication's name in a list of
// identifiers in a string.
func TestQuoteReplication(t *testing.T) {
	if got := quoteReplication(quoteIdent(`it's "odd"\`)); got != `'"it''s ""odd""\"'` {
		t.Error(got)
	}
}

func TestLiveOddNames(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), `CREATE TABLE "odd ""table"" it's\" (id int PRIMARY KEY)`)
	l.cfg.Publication = `it's "odd" \ ` + l.cfg.Slot
	l.cfg.Name = "n'a\"me"
	l.start()
	l.exec(`INSERT INTO "odd ""table"" it's\" VALUES (1)`)
	l.until("c public.odd__table__it_s_", `{"id":1}`)
}
