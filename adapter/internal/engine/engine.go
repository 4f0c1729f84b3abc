// Package engine holds connections: it reads, writes, keeps them alive and
// closes them. It knows WebSocket messages and nothing of what they mean.
//
// # Goroutines
//
// An idle connection over plain TCP is one goroutine on its first 2 KiB of
// stack, waiting for readability with no buffer. When bytes arrive a worker
// with a grown stack takes over, reads what is there and, once nothing is
// left, starts a new waiter. Writers and dispatchers are workers too, and exist
// only while there is something to write or to dispatch. Over TLS, and where
// raw connections cannot be waited for, a connection reads in the blocking way.
package engine

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Config is what every connection of an Engine shares. All fields but
// Deflate are set.
type Config struct {
	PingInterval time.Duration // between heartbeats
	PingTimeout  time.Duration // from a ping to the end of patience
	MaxPayload   int64         // bytes of one received message
	SendBuffer   int           // bytes queued before a peer counts as slow

	// Deflate is the size in bytes from which messages are compressed, for peers
	// that offer it. Zero is never: it is not negotiated then.
	Deflate int

	UpgradeTimeout time.Duration // from polling to a WebSocket, and from its probe to its use
}

// closeTimeout is how long a closing connection may take to flush, and to see
// the peer's own close frame, before it is cut.
const closeTimeout = 5 * time.Second

// chunkSize is the size of one read and of the buffer behind it.
const chunkSize = 4 << 10

// An Engine owns connections, their timers and their workers.
type Engine struct {
	cfg     Config
	wheel   *Wheel
	workers *workers
	conns   sync.WaitGroup // one for each connection that is not gone, one for each Closed that is due

	chunks  sync.Pool // *[]byte of chunkSize
	readers sync.Pool // *bufio.Reader of chunkSize
	scratch sync.Pool // *[]byte, a message while it is read

	inflaters sync.Pool // *inflater

	writeBufs sync.Pool // gorilla's own; used for nothing but its type
}

// New returns an Engine.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, wheel: NewWheel(), workers: newWorkers()}
	e.chunks.New = func() any { b := make([]byte, chunkSize); return &b }
	e.readers.New = func() any { return bufio.NewReaderSize(nil, chunkSize) }
	e.scratch.New = func() any { b := make([]byte, 0, 1<<10); return &b }
	return e
}

// Wheel returns the timers that users of the engine share with it.
func (e *Engine) Wheel() *Wheel { return e.wheel }

// Go runs t on a worker.
func (e *Engine) Go(t Task) { e.workers.run(t) }

// Close waits for every connection to be gone and for its Closed to have
// returned, and then ends timers and workers. The owner closes the connections
// first and opens none afterwards.
func (e *Engine) Close() {
	e.conns.Wait()
	e.wheel.Close()
	e.workers.close()
}

func (e *Engine) getChunk() *[]byte  { return e.chunks.Get().(*[]byte) }
func (e *Engine) putChunk(b *[]byte) { e.chunks.Put(b) }

// ErrNotWebSocket is returned by Upgrade for a request that asks for no
// WebSocket, or wrongly. Nothing has been written then.
var ErrNotWebSocket = errors.New("engine: not a WebSocket handshake")

// Upgrade makes the connection of r a WebSocket, whose events go to handler. The
// 101 with the given headers is written, and the first byte read, by Start, which
// has to be called. After an error that is not ErrNotWebSocket the connection
// below is closed and nothing can be written any more.
func (e *Engine) Upgrade(w http.ResponseWriter, r *http.Request, header http.Header, handler Handler) (*Conn, error) {
	h := &hijack{ResponseWriter: w, e: e}
	deflate := false
	if e.cfg.Deflate > 0 {
		r, deflate = offered(r)
	}
	up := websocket.Upgrader{
		WriteBufferPool: &e.writeBufs,
		WriteBufferSize: 1, // gorilla writes no data here, see Conn

		EnableCompression: deflate,
		// The caller has checked the origin, before anything else.
		CheckOrigin: func(*http.Request) bool { return true },
		// What gorilla would answer is the caller's to say.
		Error: func(http.ResponseWriter, *http.Request, int, error) {},
	}
	ws, err := up.Upgrade(h, r, header)
	if err != nil {
		if h.c == nil {
			return nil, fmt.Errorf("%w: %w", ErrNotWebSocket, err)
		}
		_ = h.c.nc.Close()
		return nil, err
	}
	if deflate {
		h.c.inflow = new(inflow)
	}
	h.c.attach(ws, handler)
	return h.c, nil
}
