package watch

// seconds is how far back rates are known.
const seconds = 60

// rates counts messages by letter, for each of the last seconds.
type rates struct {
	at [seconds]int64 // Unix time of the place
	n  [seconds][26]uint32
}

func (r *rates) add(letter byte, now int64) {
	place := now % seconds
	if r.at[place] != now {
		r.at[place], r.n[place] = now, [26]uint32{}
	}
	r.n[place][letter-'A']++
}

// sum adds up the messages of the letters in the whole seconds from now-back on; the one that goes on is left out.
func (r *rates) sum(letters string, now, back int64) (total uint64) {
	for place, at := range r.at {
		if at < now-back || at >= now {
			continue
		}
		for i := range len(letters) {
			total += uint64(r.n[place][letters[i]-'A'])
		}
	}
	return total
}
