package registry

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/tailrace/tailrace/schemas"
)

// verify fetches the schema that stands under id and compares it with the one that was
// registered. Every record is framed with the id: were it another schema's, readers would
// take the records for something that they are not, and nothing else would tell.
func (c *Client) verify(ctx context.Context, r request, id int32) error {
	kept, err := c.SchemaByID(ctx, id)
	if err != nil {
		return err
	}
	a, err := schemas.CompileSchema(r.schema)
	if err != nil {
		return &Error{Op: r.op, Subject: r.subject, Status: http.StatusUnprocessableEntity, Err: err}
	}
	b, err := schemas.CompileSchema(kept)
	if err != nil {
		return r.unreadable(err)
	}
	if !sameType(a.Type(), b.Type(), make(map[typePair]bool)) {
		e := r.unreadable(errors.New("the id that it answered stands for another schema"))
		e.misled = true
		return e
	}
	return nil
}

type typePair struct{ a, b *schemas.AvroType }

// sameType says whether two types have the same names and write the same bytes. Texts are
// not compared: registries render schemas anew. met holds the pairs that are being
// compared or have been.
func sameType(a, b *schemas.AvroType, met map[typePair]bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	if met[typePair{a, b}] {
		return true
	}
	met[typePair{a, b}] = true
	return a.Kind == b.Kind && a.Name == b.Name && a.Size == b.Size && a.Logical == b.Logical &&
		a.Precision == b.Precision && a.Scale == b.Scale && slices.Equal(a.Symbols, b.Symbols) &&
		sameType(a.Items, b.Items, met) &&
		slices.EqualFunc(a.Branches, b.Branches, func(a, b *schemas.AvroType) bool { return sameType(a, b, met) }) &&
		slices.EqualFunc(a.Fields, b.Fields, func(a, b schemas.AvroField) bool {
			return a.Name == b.Name && sameType(a.Type, b.Type, met)
		})
}
