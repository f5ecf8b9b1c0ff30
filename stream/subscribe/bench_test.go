package subscribe_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/stream/subscribe"
)

// fill writes n changes of some 300 bytes in transactions of size.
func (w *world) fill(t *table, n, size int) {
	name, note := strings.Repeat("n", 60), strings.Repeat("o", 60)
	for i := 0; i < n; i += size {
		w.begin()
		for j := range size {
			w.write(change{t: t, op: 'c', id: int64(i + j), name: name, note: note})
		}
		w.writeEnd(0)
		if i/size%1000 == 999 || size > 500 {
			w.flush()
		}
	}
	w.commit()
}

func TestRowsAllocateNothing(t *testing.T) {
	w := newWorld(t, startEmbedded(t), false)
	orders := w.table("orders", 1, nil)
	w.tx(change{t: orders, op: 'c', id: 1, name: "a", note: "x"}, change{t: orders, op: 'd', id: 1, name: "a", note: "-"})
	b, err := newFeed(t, w, w.partitions(orders)).Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	var rows subscribe.Rows
	sum := int64(0)
	n := testing.AllocsPerRun(100, func() {
		for i := range 2 {
			if err := rows.Decode(&b.Changes[i]); err != nil {
				t.Fatal(err)
			}
			for _, row := range []subscribe.Row{rows.Before(), rows.After()} {
				for i := range row.Len() {
					if v := row.Column(i); v.State() == subscribe.Set {
						sum += int64(len(v.Bytes())) + v.Int()
					}
				}
			}
			key, err := rows.Key(&b.Changes[i])
			if err != nil {
				t.Fatal(err)
			}
			sum += key.Column(0).Int() + rows.CommittedMicros() + int64(rows.LSN()) + int64(len(rows.SourceTable()))
		}
	})
	if n > 0 && !raceDetector {
		t.Errorf("%v allocations for two rows", n)
	}
}

// benchmark reads what fill wrote, decoding each row, b.N changes in all.
func benchmark(b *testing.B, partitions int32, next func(w *world, orders *table, n int)) {
	const changes = 100_000
	w := newWorld(b, startEmbedded(b), false)
	orders := w.table("orders", partitions, nil)
	w.fill(orders, changes, 10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	read := 0
	for ; read < b.N; read += changes {
		next(w, orders, changes)
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(read), "allocs/record")
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkFeed(b *testing.B) {
	for name, partitions := range map[string]int32{"1": 1, "4": 4} {
		b.Run(name, func(b *testing.B) {
			var rows subscribe.Rows
			benchmark(b, partitions, func(w *world, orders *table, n int) {
				f, err := subscribe.NewFeed(testContext(b), w.config(), w.partitions(orders))
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				for n > 0 {
					batch, err := f.Next(testContext(b))
					if err != nil {
						b.Fatal(err)
					}
					for i := range batch.Changes {
						if err := rows.Decode(&batch.Changes[i]); err != nil {
							b.Fatal(err)
						}
					}
					n -= len(batch.Changes)
					batch.Release()
				}
			})
		})
	}
}

func BenchmarkTransactions(b *testing.B) {
	var rows subscribe.Rows
	benchmark(b, 4, func(w *world, orders *table, n int) {
		for tx, err := range subscribe.Transactions(testContext(b), w.transactions(orders)) {
			if err != nil {
				b.Fatal(err)
			}
			for _, c := range tx.Changes {
				if err := rows.Decode(c); err != nil {
					b.Fatal(err)
				}
			}
			n -= len(tx.Changes)
			tx.Release()
			if n <= 0 {
				break
			}
		}
	})
}
