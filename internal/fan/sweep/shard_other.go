//go:build !linux

package sweep

import (
	"crypto/tls"
	"errors"
	"math"
	"net"

	"earshot/internal/observatory"
)

// shard does not exist without epoll: every listener is followed by a goroutine.
type shard struct{ gauge }

type arrival struct {
	join  Join
	ear   *observatory.Listener
	conn  *Conn
	tls   *tls.Conn
	input []byte
}

func newShard(*Engine) (*shard, error) { return nil, nil }
func (*shard) run()                    {}
func (*shard) nudge()                  {}
func (*shard) put(arrival)             {}

var errNoEpoll = errors.New("sweep: no epoll on this system")

func duplicate(int) (int, error)       { return -1, errNoEpoll }
func readFD(int, []byte) (int, error)  { return 0, errNoEpoll }
func writeFD(int, []byte) (int, error) { return 0, errNoEpoll }

// Descriptors is not asked for on this system.
func Descriptors() int { return math.MaxInt32 }

// tune has nothing to do: what this system could bound is not known.
func tune(*net.TCPConn) {}

// hungUp is not known without asking.
func hungUp(*net.TCPConn) bool { return false }

func memoryShort() bool { return false }
