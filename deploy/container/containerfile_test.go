package container

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// instruction is one of a Containerfile.
type instruction struct{ word, rest string }

// stage is what stands from one FROM to the next.
type stage struct {
	from         string
	instructions []instruction
}

// all returns what the instructions of a kind say.
func (s stage) all(word string) (rest []string) {
	for _, i := range s.instructions {
		if i.word == word {
			rest = append(rest, i.rest)
		}
	}
	return rest
}

// last returns what the last instruction of a kind says.
func (s stage) last(t *testing.T, word string) string {
	t.Helper()
	all := s.all(word)
	if len(all) == 0 {
		t.Fatalf("there is no %s", word)
	}
	return all[len(all)-1]
}

// words reads an instruction in its form for programs: a JSON array.
func words(t *testing.T, text string) (out []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s is not in the form that needs no shell: %v", text, err)
	}
	return out
}

// stages reads the file.
func stages(t *testing.T) (out []stage) {
	t.Helper()
	text, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`(?m)^#.*\n`)
	whole := strings.ReplaceAll(comment.ReplaceAllString(string(text), ""), "\\\n", " ")
	for line := range strings.Lines(whole) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "":
		case "FROM":
			out = append(out, stage{from: rest})
		default:
			s := &out[len(out)-1]
			s.instructions = append(s.instructions, instruction{word, strings.TrimSpace(rest)})
		}
	}
	if len(out) != 2 {
		t.Fatalf("%d stages", len(out))
	}
	return out
}

// context copies what .dockerignore lets through: what an engine sends to the build.
func context(t *testing.T) string {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	dir, everything := t.TempDir(), false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, allowed := strings.CutPrefix(line, "!")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "*":
			everything = true
		case !allowed || !everything || strings.ContainsAny(name, "*?["):
			t.Fatalf(".dockerignore: this test does not know what %q means", line)
		default:
			if err := testenv.CopyTree(filepath.Join(dir, name), filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// What stands in the file is what is wanted of it.
func TestContainerfile(t *testing.T) {
	s := stages(t)
	build, image := s[0], s[1]
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`^docker\.io/library/golang:(\d+\.\d+)\.\d+-\w+ AS build$`).FindStringSubmatch(build.from)
	wanted := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module))
	if tag == nil || tag[1] != wanted[1] {
		t.Errorf("it is built from %q, and go.mod wants Go %s", build.from, wanted[1])
	}
	if image.from != "scratch" {
		t.Errorf("the image is made from %s", image.from)
	}
	if user := image.last(t, "USER"); !regexp.MustCompile(`^[1-9]\d+:[1-9]\d+$`).MatchString(user) {
		t.Errorf("it runs as %s", user)
	}
	if volume := words(t, image.last(t, "VOLUME")); !slices.Equal(volume, []string{"/data"}) {
		t.Errorf("the volumes are %v", volume)
	}
	for _, i := range append(slices.Clone(build.instructions), image.instructions...) {
		if (i.word == "ARG" || i.word == "ENV") && regexp.MustCompile(`(?i)secret|password|token|_key|url`).MatchString(i.rest) {
			t.Errorf("%s %s would stay in a layer", i.word, i.rest)
		}
	}
	if runs := image.all("RUN"); len(runs) > 0 {
		t.Errorf("without a shell there is no %v", runs)
	}
}
