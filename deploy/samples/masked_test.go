package samples

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
)

func TestSharedDataMasked(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	mask := func(text string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(text))
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	s := start(t, "shared-data-masked", map[string]string{"STAFF_URL": "source.sql", "CONTROLLING_URL": "target.sql"}, map[string]string{"MASK_KEY": key})
	const hours = `SELECT * FROM report.hours()`
	s.becomes("CONTROLLING_URL", hours, "accounts|1|6.00", "warehouse|2|24.25")

	s.exec("STAFF_URL",
		`BEGIN; INSERT INTO staff.employee VALUES ('EMP-70014', 'Zebulon Achterberg', 'z.achterberg@example.org', '+31 20 5550199', 'NL91ABNA0417164300', '1999-09-19', 'PAY-E10', 'accounts', 'knows the boss');
		 INSERT INTO staff.booking VALUES ('EMP-70014', '2026-02-04', 4.00, 'first day'), ('EMP-70011', '2026-02-04', 8.00, 'second thoughts'); COMMIT`,
		`UPDATE staff.employee SET mail = 'brandt.w@example.org', phone = '+49 40 5550102', memo = 'better now' WHERE emp_no = 'EMP-70011'`,
		`UPDATE staff.employee SET department = 'accounts' WHERE emp_no = 'EMP-70012'`,
		`UPDATE staff.employee SET emp_no = 'EMP-80013' WHERE emp_no = 'EMP-70013'`, // another badge, all bookings with it
		`UPDATE staff.booking SET remark = 'left early', hours = 5.50 WHERE emp_no = 'EMP-70012'`,
		`INSERT INTO staff.warning (emp_no, reason) VALUES ('EMP-70011', 'smoked in the lift')`)
	s.becomes("CONTROLLING_URL", hours, "accounts|3|15.50", "warehouse|1|23.75")
	secret := []string{"EMP-700", "EMP-800", "Wilhelmina", "Brandt", "Pálsson", "Quintero", "Achterberg", "example.org", "5550101", "5550102", "5550199", "ask reception",
		"DE0212", "IS1401", "ES9121", "NL91ABNA", "1971-03-09", "1988-11-30", "1999-09-19", "PAY-E", "back trouble", "better now", "wants part-time", "knows the boss",
		"doctor at noon", "childcare", "first day", "second thoughts", "left early", "late three times", "smoked in the lift"}
	gone := []string{"5550101", "back trouble"} // replaced at the source; they must be nowhere either
	s.keeps("STAFF_URL", "CONTROLLING_URL", slices.DeleteFunc(slices.Clone(secret), func(v string) bool { return slices.Contains(gone, v) }), []string{"warehouse", "accounts"})
	if leaks := found(s.places("CONTROLLING_URL"), gone); len(leaks) > 0 {
		t.Error(leaks)
	}

	s.exec("STAFF_URL", `DELETE FROM staff.booking WHERE emp_no = 'EMP-70014'`, `DELETE FROM staff.employee WHERE emp_no = 'EMP-70014'`)
	line := func(no, initial, mail, department string) string {
		return fmt.Sprintf("%s|%s|%s|(redacted)|-|%s", mask(no), initial, mail, department)
	}
	s.becomes("CONTROLLING_URL", `SELECT emp_no, name, mail, phone, grade, department FROM staff.employee ORDER BY name`,
		line("EMP-70011", "W", mask("brandt.w@example.org"), "warehouse"), line("EMP-80013", "X", "~", "accounts"), line("EMP-70012", "Ó", mask("o.palsson@example.org"), "accounts"))
	s.becomes("CONTROLLING_URL", `SELECT emp_no, day, hours, remark FROM staff.booking ORDER BY emp_no, day`, slices.Sorted(slices.Values([]string{
		mask("EMP-70011") + "|2026-02-02|8.00|(redacted)", mask("EMP-70011") + "|2026-02-03|7.75|(redacted)", mask("EMP-70011") + "|2026-02-04|8.00|(redacted)",
		mask("EMP-70012") + "|2026-02-02|5.50|(redacted)", mask("EMP-80013") + "|2026-02-02|6.00|(redacted)"}))...)
	s.becomes("CONTROLLING_URL", `SELECT count(*) FROM information_schema.columns WHERE table_schema = 'staff' AND column_name IN ('iban', 'born', 'memo') OR table_name = 'warning'`, "0")
	if leaks := found(s.places("CONTROLLING_URL"), append(secret, key)); len(leaks) > 0 {
		t.Error(leaks)
	}
	s.stop()
}
