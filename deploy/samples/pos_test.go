package samples

import (
	"fmt"
	"testing"
)

// available is what the inventory says is left.
const available = `SELECT name, store, on_hand, reorder FROM inventory.available ORDER BY 1, 2`

// differences are none, if every line is booked once.
const differences = `SELECT * FROM inventory.differences`

func TestPOSToInventory(t *testing.T) {
	s := start(t, "pos-to-inventory", map[string]string{"NORTH_URL": "source.sql", "SOUTH_URL": "source.sql", "INVENTORY_URL": "target.sql"}, nil)
	s.becomes("INVENTORY_URL", available, "cheese|store_north|12.088|f", "cheese|store_south|-0.412|t", "cup|store_south|8|f", "pen|store_north|98.000|f", "pen|store_south|58.000|f")

	s.exec("NORTH_URL", `BEGIN; INSERT INTO receipt VALUES (3, 2, '01.02.2026 09:00', 897, 'N', 'Mr Novak', '5500005555555559');
		INSERT INTO receipt_line VALUES (3, 1, '4006381333931', 3, 299); INSERT INTO receipt_line VALUES (3, 2, '4006381333931', -1, 299); COMMIT`,
		`UPDATE receipt SET receipt_no = 300 WHERE receipt_no = 3`,             // another number, its lines too
		`UPDATE receipt_line SET qty = 5 WHERE receipt_no = 1 AND line_no = 1`, // corrected
		`UPDATE receipt_line SET ean = ' 5000000000005' WHERE receipt_no = 300 AND line_no = 2`)
	s.exec("SOUTH_URL", `BEGIN; UPDATE receipt SET voided = 'J', total_cents = 0 WHERE receipt_no = 1; UPDATE receipt_line SET voided = 'J' WHERE receipt_no = 1; COMMIT`,
		`DELETE FROM receipt WHERE receipt_no = 2`)
	for n := range 30 { // both stores at the same time, with the same numbers
		for _, store := range []string{"NORTH_URL", "SOUTH_URL"} {
			s.exec(store, fmt.Sprintf(`BEGIN; INSERT INTO receipt (receipt_no, till, opened) VALUES (%d, 1, '01.02.2026 10:00');
				INSERT INTO receipt_line VALUES (%d, 1, '04006381333931', 1, 299), (%d, 2, '2212345000005', 0.1, 1213); COMMIT`, 1000+n, 1000+n, 1000+n))
		}
		if n == 15 {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			s.run()
		}
	}
	s.becomes("INVENTORY_URL", available, "cheese|store_north|9.088|f", "cheese|store_south|-3.000|t", "cup|store_north|1.000|t", "cup|store_south|8|f", "pen|store_north|62.000|f", "pen|store_south|30.000|t")
	s.becomes("INVENTORY_URL", differences, "")

	for source, store := range map[string]string{"NORTH_URL": "store_north", "SOUTH_URL": "store_south"} {
		s.same(source, "INVENTORY_URL",
			[2]string{`SELECT receipt_no, till, opened, total_cents, voided FROM receipt ORDER BY 1`, `SELECT * FROM ` + store + `.receipt ORDER BY 1`},
			[2]string{`SELECT * FROM receipt_line ORDER BY 1, 2`, `SELECT * FROM ` + store + `.receipt_line ORDER BY 1, 2`})
	}
	s.keeps("NORTH_URL", "INVENTORY_URL", []string{"Ms Weber", "Mr Novak", "4111111111111111", "5500005555555559"}, []string{"01.02.2026 09:00"})

	s.exec("SOUTH_URL", `TRUNCATE receipt, receipt_line`, `INSERT INTO receipt VALUES (1, 1, '02.02.2026 08:00')`, `INSERT INTO receipt_line VALUES (1, 1, '5000000000005', 4, 450)`)
	s.becomes("INVENTORY_URL", available, "cheese|store_north|9.088|f", "cheese|store_south|0.000|t", "cup|store_north|1.000|t", "cup|store_south|4.000|t", "pen|store_north|62.000|f", "pen|store_south|60.000|f")
	s.becomes("INVENTORY_URL", differences, "")
	s.becomes("INVENTORY_URL", `BEGIN; UPDATE inventory.stock SET on_hand = 5 WHERE store = 'store_north' AND gtin = '05000000000005'; SELECT * FROM inventory.differences; ROLLBACK`,
		"store_north|05000000000005|5|1.000") // the view sees one
	s.stop()
}
