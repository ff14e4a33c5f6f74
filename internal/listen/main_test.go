package listen

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// childVariable makes the test binary play a program that is started with
// passed listeners: it opens the names that the variable lists and answers on one
// connection of each with the name.
const childVariable = "LISTEN_TEST_CHILD"

func TestMain(m *testing.M) {
	if list, ok := os.LookupEnv(childVariable); ok {
		os.Exit(child(strings.Fields(list)))
	}
	testenv.Main(m)
}

func child(names []string) int {
	var requests []Request
	for _, name := range names {
		requests = append(requests, Request{Name: name})
	}
	set, err := Open(requests, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "LISTEN_") && !strings.HasPrefix(kv, childVariable) {
			fmt.Println("left in the environment:", kv)
		}
	}
	var all []string
	for name, listeners := range set {
		all = append(all, fmt.Sprintf("%s=%d", name, len(listeners)))
	}
	slices.Sort(all)
	fmt.Println("open:", strings.Join(all, " "))
	for _, name := range names {
		for _, l := range set[name] {
			if err := answer(l, name); err != nil {
				fmt.Println("error:", err)
				return 1
			}
		}
	}
	if err := set.Close(); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func answer(l net.Listener, name string) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.WriteString(c, name)
	return err
}
