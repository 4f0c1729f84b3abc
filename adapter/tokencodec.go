package adapter

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"time"
)

// A TokenCodec turns sessions into the bytes that a TokenStore keeps, and back.
// It is the Codec of alexedwards/scs, so each of its codecs is one. Decode gives
// back what Encode was given: whatever a codec loses is lost at every save.
type TokenCodec interface {
	Encode(deadline time.Time, values map[string]any) ([]byte, error)
	Decode(b []byte) (deadline time.Time, values map[string]any, err error)
}

// gobCodec is what a manager of alexedwards/scs has by default. Types that are put
// into sessions are known to encoding/gob by then: scs needs the same.
type gobCodec struct{}

// gobSession is how scs writes a session: gob knows fields by their names.
type gobSession = struct {
	Deadline time.Time
	Values   map[string]any
}

func (gobCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&gobSession{deadline, values}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (gobCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var s gobSession
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return time.Time{}, nil, err
	}
	return s.Deadline, s.Values, nil
}

// A tokenSession is what the bytes in a TokenStore say.
type tokenSession struct {
	deadline time.Time // until when it can be prolonged
	values   map[any]any
}

func (st *tokenStore) decode(b []byte) (*tokenSession, error) {
	deadline, values, err := st.codec.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("adapter: decode session: give Server.TokenStore the Codec of the manager: %w", err)
	}
	s := &tokenSession{deadline, make(map[any]any, len(values))}
	for k, v := range values {
		s.values[k] = v
	}
	return s, nil
}

func (st *tokenStore) encode(s *tokenSession) ([]byte, error) {
	values := make(map[string]any, len(s.values))
	for k, v := range s.values {
		name, ok := k.(string)
		if !ok {
			return nil, fmt.Errorf("adapter: save session: the keys of this store's sessions are strings, got a %T", k)
		}
		values[name] = v
	}
	b, err := st.codec.Encode(s.deadline, values)
	if err != nil {
		return nil, fmt.Errorf("adapter: encode session: %w", err)
	}
	return b, nil
}

// expires is when the session ends unless it is saved again: a store is told, and
// does not tell. Of one that was last saved before its expiry was noted, only the
// deadline is known.
func (s *tokenSession) expires() time.Time {
	if at := expiryOf(s.values); !at.IsZero() && at.Before(s.deadline) {
		return at
	}
	return s.deadline
}
