package subscribe_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tailrace/tailrace/stream/subscribe"
)

func ExampleTo() {
	w, tb := exampleWorld() // a broker and a registry, with three changes in a topic
	defer tb.end()

	type Order struct {
		ID   int64
		Name *string
	}
	ctx := context.Background()
	cfg := subscribe.Config{Client: w.client, Registry: w.registry}
	sub, err := subscribe.To[Order](ctx, cfg, w.prefix+".public.orders", subscribe.Group("billing"))
	if err != nil {
		log.Fatal(err)
	}
	for ch, err := range sub.Changes(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if ch.Op == 'd' {
			fmt.Println("deleted", ch.Before.ID)
			break
		}
		fmt.Printf("%c %d %s\n", ch.Op, ch.After.ID, *ch.After.Name)
		ch.Ack()
	}
	// Output:
	// c 1 tea
	// u 1 green tea
	// deleted 1
}
