package notify

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkPublish measures one message of a pool that has many listeners,
// a tenth of whom never read.
func BenchmarkPublish(b *testing.B) {
	request := []Message{
		{'S', "0 StateChange Idle -> Busy"}, {'F', "2"}, {'S', "0 scan q1"},
		{'S', "0 StateChange Busy -> Idle"}, {'F', "3"},
	}
	for _, listeners := range []int{0, 1, 100, 1000} {
		for _, interest := range []string{"?YZ", "?*+"} {
			b.Run(fmt.Sprintf("listeners=%d/%s", listeners, interest), func(b *testing.B) {
				h, dial := serve(b, Options{}, 0)
				for i := range listeners {
					p := dial()
					p.want("*OK")
					p.ask(h, interest+"\n")
					if i%10 != 9 {
						go io.Copy(io.Discard, p.conn)
					}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					h.Publish(request[i%len(request)])
				}
			})
		}
	}
}
