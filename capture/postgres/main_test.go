package postgres

import (
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
