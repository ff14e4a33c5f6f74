package main

import (
	"testing"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
