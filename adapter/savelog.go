package adapter

// A saveLog remembers which sessions were saved lately, for handshakes that are
// under way: their sockets cannot be found yet, and the chain may have read what was
// there before.
type saveLog struct {
	count  uint64
	recent [64]sessionHash // the last ones, a ring; the zero hash stands for every session
}

func (l *saveLog) add(h sessionHash) {
	l.recent[l.count%uint64(len(l.recent))] = h
	l.count++
}

// since reports whether the session with an id may have been saved after count was
// seen. Of what is long ago it says so, as of what is yet to come.
func (l *saveLog) since(seen uint64, id string) bool {
	if seen == l.count {
		return false
	}
	if seen > l.count || l.count-seen > uint64(len(l.recent)) {
		return true
	}
	h := hashSession(id)
	for ; seen < l.count; seen++ {
		if saved := l.recent[seen%uint64(len(l.recent))]; saved == h || saved == (sessionHash{}) {
			return true
		}
	}
	return false
}
