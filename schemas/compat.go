package schemas

import (
	"fmt"
	"slices"
	"strings"
)

// CheckCompatible says why data written with the schema writer cannot be read with the
// schema reader; no reason means that all of it can. A subject's level BACKWARD asks for a
// new schema as the reader of the one before, FORWARD for it as the writer. Each reason begins with the place in
// the reader, as in "before.amount". Source of the rules: the Avro specification 1.12,
// "Schema Resolution"; as in Avro's Java library names are compared without their
// namespace, and logical types do not count, so that decimals of any scale are bytes.
func CheckCompatible(reader, writer string) ([]string, error) {
	r, err := parseAvro(reader)
	if err != nil {
		return nil, fmt.Errorf("read the reader's schema: %w", err)
	}
	w, err := parseAvro(writer)
	if err != nil {
		return nil, fmt.Errorf("read the writer's schema: %w", err)
	}
	c := comparison{failed: map[schemaPair]bool{}}
	for {
		c.found, c.grew = map[schemaPair]*finding{}, false
		reasons := c.pair(r, w, "")
		if c.steps > maxComparisons {
			return nil, fmt.Errorf("compare schemas: not done after %d steps", maxComparisons)
		}
		if !c.grew {
			return told(reasons), nil
		}
	}
}

const (
	maxComparisons = 1 << 20
	maxReasons     = 50 // of one pair
	maxLabels      = 10 // of a union's branches
)

// metAgain is the reason of a pair that fails when it is met inside itself: it fails for
// another reason, which is told where that is found.
const metAgain = ""

type schemaPair struct{ reader, writer *AvroType }

// finding is what is known of a pair in one comparison.
type finding struct {
	reasons []string
	open    bool // not done: it may be met inside itself
	assumed bool // it was, and was taken to fit
}

// comparison looks for pairs of types of which the first cannot read the second. Types can
// contain themselves, so a pair that is met inside itself is taken to fit unless it is
// known that it does not. Whenever it then turns out not to, all is compared again with
// that knowledge, until no such pair is left.
type comparison struct {
	failed map[schemaPair]bool // were taken to fit, but do not
	grew   bool                // failed has, in the present comparison
	found  map[schemaPair]*finding
	steps  int
}

func (c *comparison) pair(r, w *AvroType, path string) []string {
	key := schemaPair{r, w}
	if c.steps++; c.steps > maxComparisons {
		return nil
	}
	if f := c.found[key]; f != nil {
		f.assumed = f.assumed || f.open
		return f.reasons
	}
	f := &finding{open: true}
	c.found[key] = f
	if c.failed[key] {
		f.reasons = []string{metAgain}
	}
	reasons := c.resolve(r, w, path)
	f.open, f.reasons = false, reasons[:min(len(reasons), maxReasons)]
	if len(reasons) > 0 && f.assumed && !c.failed[key] {
		c.failed[key], c.grew = true, true
	}
	return f.reasons
}

func (c *comparison) resolve(r, w *AvroType, path string) []string {
	switch {
	case w.Kind == AvroUnion:
		var reasons []string
		for _, branch := range w.Branches {
			reasons = append(reasons, c.pair(r, branch, path)...)
		}
		return reasons
	case r.Kind == AvroUnion:
		return c.anyBranch(r, w, path)
	case r.Kind != w.Kind:
		if promotes(r.Kind, w.Kind) {
			return nil
		}
		return []string{place(path) + r.label() + " cannot read " + w.label()}
	case r.Kind == AvroArray:
		return c.pair(r.Items, w.Items, path+"[]")
	case r.Kind == AvroMap:
		return c.pair(r.Items, w.Items, path+"{}")
	case r.Name != "" && !sameName(r, w):
		return []string{place(path) + r.label() + " cannot read " + w.label() + ": another name, no alias"}
	case r.Kind == AvroRecord:
		return c.record(r, w, path)
	case r.Kind == AvroEnum:
		return enumReasons(r, w, path)
	case r.Kind == AvroFixed && r.Size != w.Size:
		return []string{fmt.Sprintf("%sfixed %s of %d bytes cannot read %d bytes", place(path), r.Name, r.Size, w.Size)}
	}
	return nil
}

// promotes says whether a reader may have one primitive where the writer has another.
func promotes(r, w AvroKind) bool {
	switch w {
	case AvroInt:
		return r == AvroLong || r == AvroFloat || r == AvroDouble
	case AvroLong:
		return r == AvroFloat || r == AvroDouble
	case AvroFloat:
		return r == AvroDouble
	case AvroString:
		return r == AvroBytes
	case AvroBytes:
		return r == AvroString
	}
	return false
}

// anyBranch says why none of a reader's union can read w. Of branches of w's own kind it
// tells why not.
func (c *comparison) anyBranch(r, w *AvroType, path string) []string {
	var near []string
	for _, branch := range r.Branches {
		reasons := c.pair(branch, w, path)
		if len(reasons) == 0 {
			return nil
		}
		if branch.Kind == w.Kind && near == nil {
			near = reasons
		}
	}
	if near != nil {
		return near
	}
	var labels []string
	for i, branch := range r.Branches {
		if i == maxLabels {
			labels = append(labels, "…")
			break
		}
		labels = append(labels, branch.label())
	}
	return []string{place(path) + "no branch of the union [" + strings.Join(labels, ", ") + "] can read " + w.label()}
}

// sameName compares names as Avro's Java library does: without namespace, or by the
// reader's aliases.
func sameName(r, w *AvroType) bool {
	return simpleName(r.Name) == simpleName(w.Name) || slices.Contains(r.Aliases, w.Name)
}

func simpleName(full string) string { return full[strings.LastIndexByte(full, '.')+1:] }

func (c *comparison) record(r, w *AvroType, path string) []string {
	byName := make(map[string]*AvroField, len(w.Fields))
	for i := range w.Fields {
		byName[w.Fields[i].Name] = &w.Fields[i]
	}
	var reasons []string
	for i := range r.Fields {
		f := &r.Fields[i]
		at := f.Name
		if path != "" {
			at = path + "." + f.Name
		}
		switch from := writerField(f, byName); {
		case from != nil:
			reasons = append(reasons, c.pair(f.Type, from.Type, at)...)
		case !f.HasDefault:
			reasons = append(reasons, at+": the field has no default and the writer does not have it")
		}
	}
	return reasons
}

// writerField finds the field that the reader's f is read from: of its name, else of one
// of its aliases; nil if there is none.
func writerField(f *AvroField, byName map[string]*AvroField) *AvroField {
	if from := byName[f.Name]; from != nil {
		return from
	}
	for _, alias := range f.Aliases {
		if from := byName[alias]; from != nil {
			return from
		}
	}
	return nil
}

func enumReasons(r, w *AvroType, path string) []string {
	if r.EnumDefault != "" {
		return nil
	}
	known := make(map[string]bool, len(r.Symbols))
	for _, s := range r.Symbols {
		known[s] = true
	}
	var missing []string
	for _, s := range w.Symbols {
		if !known[s] {
			missing = append(missing, s)
		}
	}
	if missing == nil {
		return nil
	}
	return []string{place(path) + r.label() + " has no default and lacks the symbols " + strings.Join(missing, ", ")}
}

func place(path string) string {
	if path == "" {
		return "the schema itself: "
	}
	return path + ": "
}

// told drops what need not be told: a type that is used twice says all twice.
func told(reasons []string) []string {
	met := map[string]bool{metAgain: true}
	out := make([]string, 0, len(reasons))
	for _, s := range reasons {
		if !met[s] {
			met[s] = true
			out = append(out, s)
		}
	}
	if len(out) == 0 && len(reasons) > 0 {
		return []string{place("") + "cannot be read"}
	}
	return out
}
