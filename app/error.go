package app

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an Error is; package web maps it to an HTTP
// status in one table.
type Code string

const (
	CodeInvalid         Code = "invalid"         // the caller sent something wrong
	CodeUnauthenticated Code = "unauthenticated" // nobody is logged in
	CodeForbidden       Code = "forbidden"
	CodeNotFound        Code = "not_found"
	CodeUnavailable     Code = "unavailable" // a store or provider does not answer; try again
	CodeInternal        Code = "internal"
)

// Error is a failure with a message that is safe to show to the person who
// caused it. Err is the cause, for logs only.
type Error struct {
	Code    Code
	Message string
	Err     error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Message, e.Err)
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error with a message for people.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first Error in err's chain, and CodeInternal
// for every other error.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
