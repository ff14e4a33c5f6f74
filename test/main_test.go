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
	testenv.Main(m)
}
