package topics

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/linkedin/goavro/v2"
)

// Registry fetches schemas by id, each once. It belongs to one goroutine.
type Registry struct {
	url    string
	codecs map[uint32]*goavro.Codec
}

// NewRegistry is a client of the registry at url.
func NewRegistry(url string) *Registry {
	return &Registry{url: url, codecs: map[uint32]*goavro.Codec{}}
}

// Decode takes a framed value (00, schema id, Avro) apart into goavro's native form. What
// is wrong with the bytes, down to a schema that the registry does not know, is a
// contentError; other errors are the registry's.
func (r *Registry) Decode(ctx context.Context, framed []byte) (any, error) {
	if len(framed) < 5 || framed[0] != 0 {
		return nil, badf("%d bytes without a frame", len(framed))
	}
	codec, err := r.codec(ctx, binary.BigEndian.Uint32(framed[1:]))
	if err != nil {
		return nil, err
	}
	v, rest, err := codec.NativeFromBinary(framed[5:])
	if err != nil {
		return nil, badf("no Avro: %v", err)
	}
	if len(rest) > 0 {
		return nil, badf("%d bytes after the value", len(rest))
	}
	return v, nil
}

func (r *Registry) codec(ctx context.Context, id uint32) (*goavro.Codec, error) {
	if c := r.codecs[id]; c != nil {
		return c, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/schemas/ids/%d", r.url, id), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch schema %d: %w", id, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, badf("schema %d is unknown", id)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch schema %d: status %d, %w", id, resp.StatusCode, err)
	}
	var answer struct{ Schema string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("fetch schema %d: %w", id, err)
	}
	c, err := goavro.NewCodec(answer.Schema)
	if err != nil {
		return nil, fmt.Errorf("read schema %d: %w", id, err)
	}
	r.codecs[id] = c
	return c, nil
}
