package adapter

// A changeLog remembers of whom something has changed lately: whose sessions were
// saved, and whom Refresh meant. It is for handshakes and replays that are under
// way: by whom they will turn out to be their sockets cannot be found yet, and the
// chain may have read what was there before.
type changeLog struct {
	count  uint64
	recent [64]mark // the last ones, a ring; the zero mark stands for everybody
}

func (l *changeLog) add(m mark) {
	l.recent[l.count%uint64(len(l.recent))] = m
	l.count++
}

// since reports whether one of those who are meant may have changed after count was
// seen. Of what is long ago it says so, as of what is yet to come.
func (l *changeLog) since(seen uint64, of whos) bool {
	if seen == l.count {
		return false
	}
	if seen > l.count || l.count-seen > uint64(len(l.recent)) {
		return true
	}
	var room [4]mark
	marks := room[:0]
	for _, w := range of {
		if w.value != "" {
			marks = append(marks, w.mark())
		}
	}
	for ; seen < l.count; seen++ {
		changed := l.recent[seen%uint64(len(l.recent))]
		if changed == (mark{}) {
			return true
		}
		for _, m := range marks {
			if changed == m {
				return true
			}
		}
	}
	return false
}
