package samples

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// letters is what `tailrace dlq list -o json` says, in short.
func (s *sample) letters() string {
	s.Helper()
	var a struct {
		Result struct {
			Counts []struct {
				Topic, Cause           string
				Keys, Letters, Waiting int
			}
		}
	}
	if err := json.Unmarshal([]byte(s.command(0, "dlq", "list", "-o", "json")), &a); err != nil {
		s.Fatal(err)
	}
	var lines []string
	for _, c := range a.Result.Counts {
		lines = append(lines, fmt.Sprintf("%s %s: %d keys, %d letters, %d waiting", c.Topic, c.Cause, c.Keys, c.Letters, c.Waiting))
	}
	return strings.Join(lines, "\n")
}

// parks waits until this is what `dlq list` says.
func (s *sample) parks(want string) {
	s.Helper()
	s.until(func() error {
		if got := s.letters(); got != want {
			return fmt.Errorf("the dead letters are %q, wanted %q", got, want)
		}
		return nil
	})
}

func TestERPToCRM(t *testing.T) {
	s := start(t, "erp-to-crm", map[string]string{"ERP_URL": "source.sql", "CRM_URL": "target.sql"}, nil)
	const accounts = `SELECT * FROM crm.accounts ORDER BY number`
	s.becomes("CRM_URL", accounts, "17|Harbour Tools|United Kingdom|Hull|~|1", "18|Søndergård A/S|Denmark|Århus|~|1")
	s.exec("CRM_URL", `UPDATE erp.kna1 SET account_manager = 'Ann' WHERE kunnr = '0000000017'`)

	s.exec("ERP_URL",
		`BEGIN; INSERT INTO erp.kna1 (kunnr, name1, land1) VALUES ('0000000020', 'Prishtina Import', 'XK'), ('0000000021', 'Skagen Fisk', 'DK');
		 INSERT INTO erp.vbak (vbeln, kunnr, netwr, marge) VALUES ('0090000004', '0000000020', 10, 77.77), ('0090000005', '0000000021', 20, 77.77); COMMIT`,
		`UPDATE erp.kna1 SET name1 = 'Prishtina Trading', ort01 = 'Prishtina' WHERE kunnr = '0000000020'`,
		`UPDATE erp.kna1 SET ort01 = 'Leeds' WHERE kunnr = '0000000017'`,
		`UPDATE erp.kna1 SET kunnr = '0000000118' WHERE kunnr = '0000000018'`,
		`UPDATE erp.vbak SET kunnr = '0000000118' WHERE kunnr = '0000000018'`,
		`DELETE FROM erp.vbak WHERE vbeln = '0090000003'`,
		`ALTER TABLE erp.kna1 ADD COLUMN iban varchar(34)`, `UPDATE erp.kna1 SET iban = 'GB33BUKB20201555555555', loevm = ' ', ort01 = 'Sligo' WHERE kunnr = '0000000019'`)
	others := []string{"118|Søndergård A/S|Denmark|Århus|~|1", "17|Harbour Tools|United Kingdom|Leeds|Ann|1", "19|Old Mill|Ireland|Sligo|~|0"}
	s.becomes("CRM_URL", accounts, append(others, "21|Skagen Fisk|Denmark|~|~|1")...)
	s.parks("erp.erp.kna1 23503: 1 keys, 2 letters, 1 waiting")
	s.becomes("CRM_URL", `SELECT vbeln, kunnr, netwr FROM erp.vbak ORDER BY 1`,
		"0090000001|0000000017|1250.00", "0090000002|0000000118|99.90", "0090000004|0000000020|10.00", "0090000005|0000000021|20.00")

	if out := s.command(1, "dlq", "retry", "--wait", "60s", "-o", "json"); !strings.Contains(out, `"refused_again": 1`) {
		t.Errorf("a retry before mending says %s", out)
	}
	s.parks("erp.erp.kna1 23503: 1 keys, 2 letters, 1 waiting")
	s.file("CRM_URL", "erp-to-crm/mend.sql")
	s.command(0, "dlq", "retry", "--wait", "60s")
	s.becomes("CRM_URL", accounts, append(others, "20|Prishtina Trading|Kosovo|Prishtina|~|1", "21|Skagen Fisk|Denmark|~|~|1")...)
	s.parks("")
	s.keeps("ERP_URL", "CRM_URL", []string{"GB 999 9999 73", "DK-13585628", "GB33BUKB20201555555555", "77.77", "JSMITH", "4200.00"}, []string{"Skagen Fisk", "Sligo"})
	s.exec("ERP_URL", `DELETE FROM erp.kna1 WHERE kunnr = '0000000020'`, `TRUNCATE erp.vbak`, `INSERT INTO erp.vbak (vbeln, kunnr) VALUES ('0090000009', '0000000021')`)
	s.becomes("CRM_URL", accounts, "118|Søndergård A/S|Denmark|Århus|~|0", "17|Harbour Tools|United Kingdom|Leeds|Ann|0", "19|Old Mill|Ireland|Sligo|~|0", "21|Skagen Fisk|Denmark|~|~|1")

	const columns = `SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_schema = 'erp' GROUP BY 1 ORDER BY 1`
	s.becomes("CRM_URL", columns, "kna1|mandt kunnr name1 land1 ort01 pstlz telf1 loevm erdat account_manager", "vbak|mandt vbeln kunnr audat netwr waerk")
	s.stop()
}
