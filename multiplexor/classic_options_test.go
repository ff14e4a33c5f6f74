package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheirArguments(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, args, want string }{
		{"separate and attached", "-x 10 -m5", "-x10 -m5"},
		{"clusters", "-lZx 10 -Dq5", "-l -Z -x10 -D -q5"},
		{"value with a hyphen", "-V -1 -L -5 -Y -name -l", "-V-1 -L-5 -Y-name -l"},
		{"repeated", "-x 3 -s a -l -s b -x4", "-l -sb -x4"},
		{"upper and lower case", "-x 3 -X 5", "-x3 -X5"},
		{"other arguments", "one -l two -x 3 - three", "-l -x3"},
		{"end of options", "-l -- -x 3", "-l"},
		{"value of two hyphens", "-Y -- -l", "-Y-- -l"},
		{"ours", "-x 3 --reload classic", "-x 3 --reload classic"},
		{"unknown", "-x 3 -n", "-x 3 -n"},
		{"no value", "-l -x", "-l -x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := classicArguments(strings.Fields(tt.args))
			if d := cmp.Diff(strings.Fields(tt.want), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tt.args, d)
			}
			s := &settings{program: originalName}
			_, err := parser(originalName).Parse(s, got)
			if bad := tt.name == "unknown" || tt.name == "no value"; (err != nil) != bad {
				t.Errorf("%s: error %v", tt.args, err)
			}
		})
	}
}
