package version

import (
	"runtime"
	"testing"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestLine(t *testing.T) {
	defer func(was string) { release = was }(release)
	release = "1.2.3"
	if got, want := Line("notify-cat"), "notify-cat (postern) 1.2.3 "+runtime.Version(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
