package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
)

// one returns the text that a query gives; "" if it gives no row.
func (v *visit) one(ctx context.Context, sql string, args ...any) (string, error) {
	var text string
	err := v.tx.QueryRow(ctx, sql, args...).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return text, err
}

// checkout sells: an order with its items and its payment, and less in stock.
func checkout(ctx context.Context, v *visit) (string, error) {
	store, lines := rand.IntN(4)+1, rand.IntN(4)+1
	column, value := "", ""
	if v.wide {
		column, value = ", channel", ", 'till'"
	}
	id, err := v.one(ctx, "INSERT INTO orders (store_id, customer_id, placed, total, details"+column+`)
		SELECT $1, (SELECT id FROM customers WHERE id >= $2 ORDER BY id LIMIT 1), clock_timestamp(), 0, jsonb_build_object('till', $3::int)`+value+` RETURNING id::text`,
		store, rand.IntN(300), rand.IntN(5))
	if err != nil {
		return "", err
	}
	v.counts.rows[insert]++
	v.tables["orders"] = true
	if err := v.do(ctx, insert, "order_items", `INSERT INTO order_items SELECT $1::text::bigint, row_number() OVER (), sku, 1 + $2::int % 3, price
		FROM (SELECT sku, price FROM products WHERE active ORDER BY random() LIMIT $3) p`, id, rand.IntN(9), lines); err != nil {
		return "", err
	}
	if err := v.do(ctx, update, "stock", `UPDATE stock s SET quantity = s.quantity - i.quantity FROM order_items i
		WHERE i.order_id = $1::text::bigint AND s.sku = i.sku AND s.store_id = $2`, id, store); err != nil {
		return "", err
	}
	if err := v.do(ctx, update, "orders", `UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_items WHERE order_id = $1::text::bigint) WHERE id = $1::text::bigint`, id); err != nil {
		return "", err
	}
	if err := v.do(ctx, insert, "payments", "INSERT INTO payments (order_id, amount, paid) SELECT id, total, clock_timestamp() FROM orders WHERE id = $1::text::bigint", id); err != nil {
		return "", err
	}
	return fmt.Sprintf("order %s: %d items, store %d", id, lines, store), nil
}

// cancel takes an order back, with all that belongs to it.
func cancel(ctx context.Context, v *visit) (string, error) {
	id, err := v.one(ctx, `SELECT id::text FROM orders WHERE id >= (SELECT min(id) + floor($1 * (max(id) - min(id)))::bigint FROM orders)
		ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`, rand.Float64())
	if err != nil || id == "" {
		return "", err
	}
	for _, from := range []struct{ table, key string }{{"payments", "order_id"}, {"order_items", "order_id"}, {"orders", "id"}} {
		if err := v.do(ctx, remove, from.table, "DELETE FROM "+from.table+" WHERE "+from.key+" = $1::text::bigint", id); err != nil {
			return "", err
		}
	}
	return "order " + id + " cancelled", nil
}

// reprice changes a price.
func reprice(ctx context.Context, v *visit) (string, error) {
	sku, err := v.one(ctx, "SELECT sku FROM products ORDER BY random() LIMIT 1")
	if err != nil {
		return "", err
	}
	price := fmt.Sprintf("%d.%02d", 1+rand.IntN(90), rand.IntN(100))
	return "product " + sku + " costs " + price, v.do(ctx, update, "products", "UPDATE products SET price = $2::text::numeric WHERE sku = $1", sku, price)
}

// restock fills up what has become little.
func restock(ctx context.Context, v *visit) (string, error) {
	store := rand.IntN(4) + 1
	err := v.do(ctx, update, "stock", `UPDATE stock SET quantity = 1000 WHERE store_id = $1 AND sku IN
		(SELECT sku FROM stock WHERE store_id = $1 ORDER BY quantity LIMIT 10 FOR UPDATE SKIP LOCKED)`, store)
	return fmt.Sprintf("store %d restocked", store), err
}

// renumber changes a primary key, and with it those of the rows that refer to it.
func renumber(ctx context.Context, v *visit) (string, error) {
	sku, err := v.one(ctx, "SELECT sku FROM products ORDER BY random() LIMIT 1")
	if err != nil {
		return "", err
	}
	to := fmt.Sprintf("P%05d", 1000+rand.IntN(90000))
	return "product " + sku + " is now " + to, v.do(ctx, rekey, "products", "UPDATE products SET sku = $2 WHERE sku = $1", sku, to)
}

// register adds a customer.
func register(ctx context.Context, v *visit) (string, error) {
	name := fmt.Sprintf("Customer %06d", rand.IntN(1e6))
	return name + " registered", v.do(ctx, insert, "customers",
		"INSERT INTO customers (name, email, since, card) VALUES ($1, NULL, clock_timestamp(), gen_random_uuid())", name)
}

// forget removes customers without orders.
func forget(ctx context.Context, v *visit) (string, error) {
	err := v.do(ctx, remove, "customers", `DELETE FROM customers WHERE id IN
		(SELECT id FROM customers c WHERE id > 300 AND NOT EXISTS (SELECT 1 FROM orders WHERE customer_id = c.id) LIMIT 2)`)
	return "customers without orders removed", err
}
