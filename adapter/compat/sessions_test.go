package compat

import (
	"testing"
	"time"

	"github.com/gin-contrib/sessions"

	"github.com/gin-usher/usher/adapter/adaptertest"
)

// The suite for stores, over those that keep sessions in a database.

// TestSessionsInMiniredis needs no redis-server.
func TestSessionsInMiniredis(t *testing.T) {
	t.Parallel()
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store { return newRedis(t) }, false)
}

func TestSessionsInRedis(t *testing.T) {
	t.Parallel()
	shared := startRedis(t, false)
	adaptertest.Sessions(t, func(*testing.T) sessions.Store { return shared.sessions(time.Hour) }, false)
}

func TestSessionsInGorm(t *testing.T) {
	t.Parallel()
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store { return lasting(openGorm(t), time.Hour) }, false)
}

func TestSessionsInFiles(t *testing.T) {
	t.Parallel()
	adaptertest.Sessions(t, func(t *testing.T) sessions.Store { return lasting(newFiles(t), time.Hour) }, false)
}
