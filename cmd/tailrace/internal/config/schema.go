package config

import (
	"encoding/json"
	"reflect"

	"github.com/invopop/jsonschema"
)

// SchemaID names the JSON Schema of the configuration.
const SchemaID = "https://github.com/tailrace/tailrace/config.schema.json"

// Schema returns the JSON Schema of the configuration, for editors.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		ExpandedStruct:             true,
		Mapper:                     scalarSchema,
	}
	s := r.Reflect(&Config{})
	s.ID, s.Title = SchemaID, "tailrace configuration"
	return json.MarshalIndent(s, "", "  ")
}

// scalarSchema gives the types that are written otherwise than their Go type says.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	switch t {
	case secretType:
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[Mask]():
		return maskSchema()
	case reflect.TypeFor[Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}
	case reflect.TypeFor[Size]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer"}, {Type: "string", Pattern: `^[0-9]+ ?([KMGT]iB)?$`}}}
	}
	return nil
}

// maskSchema is the schema of a Mask: one word, or a mapping with one key.
func maskSchema() *jsonschema.Schema {
	r := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, Mapper: func(t reflect.Type) *jsonschema.Schema {
		if t == reflect.TypeFor[Mask]() {
			return nil
		}
		return scalarSchema(t)
	}}
	mapping := r.Reflect(&Mask{})
	mapping.Version, mapping.ID, mapping.Required = "", "", nil
	mapping.Properties.Delete("Redact")
	one := uint64(1)
	mapping.MinProperties, mapping.MaxProperties = &one, &one
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Const: "redact"}, mapping}}
}
