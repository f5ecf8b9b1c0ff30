package webhook

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

// mapValues are values of a test, by source.column.
type mapValues map[string]string

func (m mapValues) value(source, column string) ([]byte, error) {
	text, ok := m[strings.TrimSuffix(source+"."+column, ".")]
	if !ok {
		return nil, errNull
	}
	return []byte(text), nil
}

func TestURLTemplate(t *testing.T) {
	of := mapValues{"after.id": "7", "key.id": "a/../b c?#%é", "after.q": "x&y=1 +", "table": "orders", "op": "u", "after.dots": "..", "after.dot": ".", "after.empty": "", "after.{": "brace"}
	for _, c := range []struct{ template, want string }{
		{"https://api.example/orders/{after.id}", "https://api.example/orders/7"},
		{"https://api.example/{table}/{key.id}/x", "https://api.example/orders/a%2F..%2Fb%20c%3F%23%25%C3%A9/x"},
		{"https://api.example?q={after.q}&op={op}", "https://api.example?q=x%26y%3D1+%2B&op=u"},
		{"https://api.example:8443/a{{b}}/{after.id}-{op}", "https://api.example:8443/a%7Bb%7D/7-u"},
		{"https://api.example/{after.dots}x", "https://api.example/..x"},
		{"https://api.example/x?{after.empty}", "https://api.example/x?"},
	} {
		u, base, err := parseURL(c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if got, err := u.address(base, of); err != nil || got.String() != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.template, got, err, c.want)
		}
	}
	for template, want := range map[string]error{
		"https://api.example/{after.gone}": errNull, "https://api.example/{after.dots}": errDots, "https://api.example/{after.dot}/x": errDots,
		"https://api.example/a/{after.empty}": errEmpty, "https://api.example/{after.empty}.{after.dot}": errEmpty,
	} {
		u, base, err := parseURL(template)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := u.address(base, of); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v; want %v", template, got, err, want)
		}
	}
}

func TestBadURLs(t *testing.T) {
	for text, want := range map[string]error{
		"https://{after.host}/x": errHost, "https://a.{key.x}.example/": errHost, "{op}://a/": errHost, "https://a{op}/": errHost, "https://a:{after.port}/": errHost, "https://{after.user}@a/": errHost,
		"ftp://a/": errScheme, "a/b": errScheme, "//a/b": errScheme, "": errScheme, "https:///x": errParse, "https:a": errParse, "https://a/%zz": errParse, "https://a b/": errParse,
		"https://u:p@a/": errUser, "https://a/#x": errHash, "https://a/{op}#x": errHash, "https://a/../b": errDots, "https://a/%2e%2E/b": errDots, "https://a/./b": errDots,
		"https://a/{x}": errBrace, "https://a/{after}": errBrace, "https://a/{after.}": errBrace, "https://a/{op.x}": errBrace, "https://a/{after.x": errClose, "https://a/{": errClose, "https://a/{}": errBrace,
	} {
		if _, base, err := parseURL(text); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v; want %v", text, base, err, want)
		}
	}
}

func TestHeaderTemplate(t *testing.T) {
	h, err := parseTemplate("v1 {after.x}/{{{op}", inHeader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.render(nil, mapValues{"after.x": "a\r\nX: y\"%é \x00", "op": "c"})
	if want := "v1 a%0D%0AX:%20y%22%25%C3%A9%20%00/{c"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// Whatever a row has, it stays in its place: scheme, host and number of segments are those
// of the template, and the receiver reads the value itself.
func FuzzURLTemplate(f *testing.F) {
	for _, v := range []string{"7", "..", "a/b", "a?b#c", "\r\n", "%2e%2e", "é\xff", "@evil.example/", "//evil", "{op}", ""} {
		f.Add(v, v)
	}
	u, base, err := parseURL("https://api.example/a/{after.p}/b?x=1&q={after.q}")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p, q string) {
		got, err := u.address(base, mapValues{"after.p": p, "after.q": q})
		if err != nil {
			if p != "" && p != "." && p != ".." {
				t.Fatalf("%q, %q: %v", p, q, err)
			}
			return
		}
		wire, err := url.Parse("https://api.example" + got.RequestURI())
		if err != nil {
			t.Fatalf("%q, %q: %v", p, q, err)
		}
		segments := strings.Split(wire.EscapedPath(), "/")
		query, err := url.ParseQuery(wire.RawQuery)
		if err != nil || len(query) != 2 || query.Get("q") != q || query.Get("x") != "1" {
			t.Fatalf("%q: the query is %v, %v", q, query, err)
		}
		if len(segments) != 4 || segments[1] != "a" || segments[3] != "b" {
			t.Fatalf("%q: the path is %q", p, segments)
		}
		if back, err := url.PathUnescape(segments[2]); err != nil || back != p {
			t.Fatalf("%q comes as %q, %v", p, back, err)
		}
	})
}

// No text makes the reader panic, or lets a template before the path.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://a/{after.id}", "https://{op}/", "http://a?{op}", "{{}}", "https://a/{after.x}/{", "https://[::1]:80/{op}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, base, err := parseURL(text)
		if err != nil {
			return
		}
		of := mapValues{}
		for _, p := range u {
			of[strings.TrimSuffix(p.source+"."+p.column, ".")] = "evil.example"
		}
		if got, err := u.address(base, of); err == nil && (got.Host != base.Host || got.Scheme != base.Scheme || got.User != nil) {
			t.Fatalf("%q leads to %s", text, got)
		}
	})
}
