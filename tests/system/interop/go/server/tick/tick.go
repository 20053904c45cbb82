// Package tick has the events of the server.
package tick

import "errors"

// Tick is one event; a faulty one has no number.
type Tick struct {
	Value    int
	Label    string
	IsFaulty bool
}

// Number is resolved by this method, so that it can fail in the middle of a stream.
func (t *Tick) Number() (int, error) {
	if t.IsFaulty {
		return 0, errors.New("this one cannot be told")
	}
	return t.Value, nil
}
