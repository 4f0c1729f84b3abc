package compat

import (
	"testing"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// The suite for stores, over those that keep sessions in a database.

func TestSessionsInRedis(t *testing.T) {
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store { return newRedis(t) }, false)
}

func TestSessionsInGorm(t *testing.T) {
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store { return newGorm(t) }, false)
}
