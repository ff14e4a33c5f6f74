package hub

import (
	"slices"
	"testing"
)

func TestAccess(t *testing.T) {
	o, err := Access{NotifyUsers: []string{"root", "4711"}, NotifyLimit: 5}.Options("YZ", nil)
	if err != nil || !slices.Equal(o.Users, []uint32{0, 4711}) || o.MaxListeners != 5 || o.Letters != "YZ" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, a := range []Access{{NotifyLimit: 0}, {NotifyLimit: 1, NotifyUsers: []string{"no such user"}}, {NotifyLimit: 1, NotifyUsers: []string{"-1"}}} {
		if o, err := a.Options("", nil); err == nil {
			t.Errorf("%+v gives %+v", a, o)
		}
	}
}
