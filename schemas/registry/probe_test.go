package registry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// proxy passes requests on to a registry of the test, but for those that refuse answers.
func proxy(t *testing.T, refuse func(*http.Request) int) (through, direct *registry.Client) {
	t.Helper()
	base := registrytest.Start(t)
	to, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := refuse(r); code != 0 {
			w.WriteHeader(code)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	clients := make([]*registry.Client, 2)
	for i, url := range []string{s.URL, base} {
		if clients[i], err = registry.NewClient(registry.ClientConfig{URL: url}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(clients[i].Close)
	}
	return clients[0], clients[1]
}

// steps are the steps that were tried, with ! before those that failed.
func steps(results []registry.ProbeResult) string {
	var out []string
	for _, r := range results {
		name := string(r.Step)
		if r.Err != nil {
			name = "!" + name
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(*http.Request) int
		want   string
		left   bool
	}{
		{"works", func(*http.Request) int { return 0 }, "reach register delete", false},
		{"no entrance", func(*http.Request) int { return 401 }, "!reach", false},
		{"read only", func(r *http.Request) int { return map[string]int{"POST": 403}[r.Method] }, "reach !register", false},
		{"may not delete", func(r *http.Request) int { return map[string]int{"DELETE": 403}[r.Method] }, "reach register !delete", true},
		{"fault after it was written", func(r *http.Request) int {
			if strings.HasPrefix(r.URL.Path, "/schemas/ids/") {
				return 500
			}
			return 0
		}, "reach !register delete", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			through, direct := proxy(t, c.refuse)
			if got := steps(through.Probe(t.Context(), "scratch")); got != c.want {
				t.Errorf("steps are %s, want %s", got, c.want)
			}
			wantSubject(t, direct, c.left)
		})
	}
}

// A probe that is interrupted after it has registered deletes all the same.
func TestProbeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	through, direct := proxy(t, func(r *http.Request) int {
		if strings.HasPrefix(r.URL.Path, "/schemas/ids/") {
			cancel()
		}
		return 0
	})
	if got := steps(through.Probe(ctx, "scratch")); got != "reach !register delete" {
		t.Errorf("steps are %s", got)
	}
	wantSubject(t, direct, false)
}

func wantSubject(t *testing.T, c *registry.Client, left bool) {
	t.Helper()
	subjects, err := c.Subjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Contains(subjects, "scratch"); got != left {
		t.Errorf("the subject is left: %v", got)
	}
	if err := c.DeleteSubject(t.Context(), "absent"); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
}
