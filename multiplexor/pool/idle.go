package pool

// idleSet holds the workers that can take a request now, ordered so that the
// choice costs the same however many there are.
//
// The order of preference: a worker whose last request was of the same kind, the
// longest running one first; one that never had a typed request, the least
// recently used first; else the longest running of all. Requests of kind other
// leave no trace in a worker.
type idleSet struct {
	typed [kinds]workerHeap // by activation
	fresh workerList        // kind none, least recently used first
}

func (s *idleSet) add(w *worker) {
	if w.lastKind == kindNone {
		s.fresh.push(w)
	} else {
		s.typed[w.lastKind].push(w)
	}
	w.available = true
}

func (s *idleSet) remove(w *worker) {
	if !w.available {
		return
	}
	if w.lastKind == kindNone {
		s.fresh.remove(w)
	} else {
		s.typed[w.lastKind].remove(w)
	}
	w.available = false
}

// take removes and gives the worker for a request of kind k, or nil.
func (s *idleSet) take(k Kind) *worker {
	w := s.choose(k)
	if w != nil {
		s.remove(w)
	}
	return w
}

func (s *idleSet) choose(k Kind) *worker {
	if k.counted() && len(s.typed[k]) > 0 {
		return s.typed[k][0]
	}
	if s.fresh.head != nil {
		return s.fresh.head
	}
	var oldest *worker
	for i := range s.typed {
		if h := s.typed[i]; len(h) > 0 && (oldest == nil || h[0].activation < oldest.activation) {
			oldest = h[0]
		}
	}
	return oldest
}

// workerList is a doubly linked list through the workers themselves.
type workerList struct{ head, tail *worker }

func (l *workerList) push(w *worker) {
	w.prev, w.next = l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
}

func (l *workerList) remove(w *worker) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

// workerHeap has the worker with the lowest activation number on top.
type workerHeap []*worker

func (h *workerHeap) push(w *worker) {
	*h = append(*h, w)
	w.heapAt = len(*h) - 1
	h.up(w.heapAt)
}

func (h *workerHeap) remove(w *worker) {
	i, last := w.heapAt, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.up(i)
		h.down(i)
	}
}

func (h workerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}

func (h workerHeap) up(i int) {
	for i > 0 && h[i].activation < h[(i-1)/2].activation {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h workerHeap) down(i int) {
	for {
		c := 2*i + 1
		if c+1 < len(h) && h[c+1].activation < h[c].activation {
			c++
		}
		if c >= len(h) || h[i].activation < h[c].activation {
			return
		}
		h.swap(i, c)
		i = c
	}
}
