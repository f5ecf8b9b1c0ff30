package main

import (
	"cmp"
	"math/big"
	"slices"
)

// change is a change of a row, as tailrace tells it. Of the columns there is what the
// workflow needs.
type change struct {
	Op     string `json:"op"` // c, r, u, d, t
	Table  string `json:"table"`
	Key    key    `json:"key"`
	After  *row   `json:"after,omitempty"`
	OldKey *key   `json:"old_key,omitempty"` // of the insert, when a row got another key
	NewKey *key   `json:"new_key,omitempty"` // of the delete, then
}

type key struct {
	OrderNo string `json:"order_no,omitempty"`
	ID      int64  `json:"id,omitempty"`
}

type row struct {
	OrderNo string `json:"order_no"`
	Status  int    `json:"status,omitempty"`
	Total   string `json:"total,omitempty"` // decimals are text, with all their digits
	Amount  string `json:"amount,omitempty"`
}

// The status codes of the shop.
const (
	shipped   = 3
	delivered = 4
	cancelled = 9
)

// order is what is known of one.
type order struct {
	status  int
	total   *big.Rat
	changes int
}

// payment is what is known of one.
type payment struct {
	order  string
	amount *big.Rat
}

// workflows are all orders. Changes of one row come in their order, those of different rows
// in any: a payment may come before its order. So facts are kept by row, and where an order
// stands is found out from them.
type workflows struct {
	orders   map[string]order
	payments map[int64]payment
}

func newWorkflows() *workflows {
	return &workflows{orders: map[string]order{}, payments: map[int64]payment{}}
}

// apply takes one change, which has not come before.
func (w *workflows) apply(c change) {
	switch {
	case c.Op == "t" && c.Table == "orders":
		clear(w.orders)
	case c.Op == "t":
		clear(w.payments)
	case c.Table == "payment" && c.After == nil:
		delete(w.payments, c.Key.ID)
	case c.Table == "payment":
		w.payments[c.Key.ID] = payment{c.After.OrderNo, amount(c.After.Amount)}
	case c.After == nil && c.NewKey != nil:
		w.renumber(c.Key.OrderNo, c.NewKey.OrderNo)
	case c.After == nil:
		delete(w.orders, c.Key.OrderNo)
	default:
		if c.OldKey != nil {
			w.renumber(c.OldKey.OrderNo, c.Key.OrderNo)
		}
		o := w.orders[c.Key.OrderNo]
		w.orders[c.Key.OrderNo] = order{c.After.Status, amount(c.After.Total), o.changes + 1}
	}
}

// renumber moves an order. It is told twice, by the delete and by the insert, which come in
// either order, and the insert may even come before what the order was: then the new number
// knows better already.
func (w *workflows) renumber(from, to string) {
	was, known := w.orders[from]
	if !known {
		return
	}
	delete(w.orders, from)
	o, newer := w.orders[to]
	if !newer {
		o.status, o.total = was.status, was.total
	}
	o.changes += was.changes
	w.orders[to] = o
}

// amount reads a decimal; what is none counts nothing.
func amount(text string) *big.Rat {
	if r, ok := new(big.Rat).SetString(text); ok {
		return r
	}
	return new(big.Rat)
}

// standing is where an order stands.
type standing struct {
	Order   string `json:"order"`
	State   string `json:"state"`
	Paid    string `json:"paid"`
	Changes int    `json:"changes"` // of its row, each counted once
}

// list is where every order stands.
func (w *workflows) list() []standing {
	paid := map[string]*big.Rat{}
	for _, p := range w.payments {
		paid[p.order] = new(big.Rat).Add(p.amount, cmp.Or(paid[p.order], new(big.Rat)))
	}
	out := []standing{}
	for no, o := range w.orders {
		sum := cmp.Or(paid[no], new(big.Rat))
		out = append(out, standing{no, o.state(sum), sum.FloatString(2), o.changes})
		delete(paid, no)
	}
	for no, sum := range paid {
		out = append(out, standing{no, "awaiting order", sum.FloatString(2), 0})
	}
	slices.SortFunc(out, func(a, b standing) int { return cmp.Compare(a.Order, b.Order) })
	return out
}

// state is the step of the workflow that an order is at.
func (o order) state(paid *big.Rat) string {
	switch {
	case o.status == cancelled && paid.Sign() > 0:
		return "refunding"
	case o.status == cancelled:
		return "closed"
	case o.status == delivered:
		return "done"
	case o.status == shipped:
		return "in transit"
	case paid.Cmp(o.total) < 0:
		return "awaiting payment"
	}
	return "picking"
}
