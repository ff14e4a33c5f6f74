package test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) {
	if pid, err := strconv.Atoi(os.Getenv(intruderVariable)); err == nil {
		fmt.Print(strings.Join(intrude(pid), " "))
		return
	}
	// The settings files of this machine are none of a test's.
	for _, program := range []string{"SMTP_PROXY", "MULTIPLEXOR", "POP3_STAMP", "FILTER_BASIC"} {
		os.Setenv(program+"_CONFIG", os.DevNull)
	}
	testenv.Main(m)
}
