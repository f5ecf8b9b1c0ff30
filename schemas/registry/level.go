package registry

import "github.com/tailrace/tailrace/schemas"

// Level is what a subject asks of a new version towards its earlier ones.
type Level string

// The levels. Backward: the new schema reads what the last one wrote; Forward: the last
// one reads what the new one writes; Full: both. Transitive: not with the last one only
// but with all.
const (
	None               Level = "NONE"
	Backward           Level = "BACKWARD"
	BackwardTransitive Level = "BACKWARD_TRANSITIVE"
	Forward            Level = "FORWARD"
	ForwardTransitive  Level = "FORWARD_TRANSITIVE"
	Full               Level = "FULL"
	FullTransitive     Level = "FULL_TRANSITIVE"
)

type levelRule struct{ backward, forward, transitive bool }

var levelRules = map[Level]levelRule{
	None:               {},
	Backward:           {backward: true},
	BackwardTransitive: {backward: true, transitive: true},
	Forward:            {forward: true},
	ForwardTransitive:  {forward: true, transitive: true},
	Full:               {backward: true, forward: true},
	FullTransitive:     {backward: true, forward: true, transitive: true},
}

// compare returns why a new schema may not follow an old one.
func (l levelRule) compare(schema string, old *schemaText) []string {
	switch {
	case old.schemaType != "":
		return []string{"it is of type " + old.schemaType}
	case !isEmpty(old.references):
		return []string{"it refers to other schemas, which this registry does not resolve"}
	}
	var reasons []string
	if l.backward {
		reasons = append(reasons, unreadable(schema, old.schema)...)
	}
	if l.forward {
		reasons = append(reasons, unreadable(old.schema, schema)...)
	}
	return reasons
}

// unreadable returns why reader cannot read what writer wrote. That one of them cannot be
// understood is such a reason.
func unreadable(reader, writer string) []string {
	reasons, err := schemas.CheckCompatible(reader, writer)
	if err != nil {
		return []string{err.Error()}
	}
	return reasons
}
