package main

import (
	"log/slog"
	"os"
	"testing"
)

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
