package sockspec

import (
	"slices"
	"testing"
)

func TestUsers(t *testing.T) {
	if ids, err := Users("users", []string{"root", "4711"}); err != nil || !slices.Equal(ids, []uint32{0, 4711}) {
		t.Errorf("%v, %v", ids, err)
	}
	for _, name := range []string{"no such user", "-1", "", "4294967296"} {
		if ids, err := Users("users", []string{name}); err == nil {
			t.Errorf("%q: %v", name, ids)
		}
	}
}
