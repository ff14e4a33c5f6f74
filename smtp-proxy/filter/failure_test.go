package filter

import "testing"

func TestParseOnFailure(t *testing.T) {
	for text, want := range map[string]OnFailure{
		"tempfail": {}, "accept": {Accept, Accept, Accept, Accept, Accept}, "reject": {Refuse, Refuse, Refuse, Refuse, Refuse},
		"scan=tempfail  helook=accept":                  {Helook: Accept},
		"relayok=accept senderok=reject recipok=accept": {Relayok: Accept, Senderok: Refuse, Recipok: Accept},
		"scan=accept": {Scan: Accept},
	} {
		if got, err := ParseOnFailure(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "Accept", "scan", "scan=", "scan=maybe", "body=accept", "scan=accept scan=reject", "accept scan=tempfail", "scan = accept"} {
		if got, err := ParseOnFailure(text); err == nil {
			t.Errorf("%q is %v, and no error", text, got)
		}
	}
}
