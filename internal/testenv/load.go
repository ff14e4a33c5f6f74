package testenv

import "os"

// SoakVariable names the environment variable that `make soak` sets.
const SoakVariable = "POSTERN_TEST_SOAK"

// Load gives how much of something a test does, such as clients or rounds: enough to show what it is about, or, under
// `make soak`, as much as finds what happens seldom.
func Load(enough, soak int) int {
	if os.Getenv(SoakVariable) != "" {
		return soak
	}
	return enough
}
