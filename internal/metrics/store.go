package metrics

import "postern/internal/store"

// Store adds the metrics of a store that gateways share. Without read it does not.
func (r *Registry) Store(read func() store.Counts) {
	if read == nil {
		return
	}
	r.Read([]Metric{
		{Name: "store_up", Help: "Whether the shared store answers."},
		{Name: "store_requests_total", Help: "Requests to the shared store: answered, refused by it, failed, or skipped because it was known not to answer.", Counter: true,
			Label: "outcome", Values: []string{"answered", "refused", "failed", "skipped"}},
	}, func(put func(name, label string, v float64)) {
		c := read()
		put("store_up", "", truth(!c.Down))
		put("store_requests_total", "answered", float64(c.Answered))
		put("store_requests_total", "refused", float64(c.Refused))
		put("store_requests_total", "failed", float64(c.Failed))
		put("store_requests_total", "skipped", float64(c.Skipped))
	})
}
