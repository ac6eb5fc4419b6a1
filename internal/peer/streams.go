package peer

import (
	"io"
	"net"
	"sync/atomic"

	"github.com/pion/transport/v4/packetio"
)

const (
	// maxStreams bounds what one connection may open: RTP and RTCP streams together. A browser needs two to six. The library
	// makes one for each SSRC that it meets in a packet, a report about 31 of them makes 31, and none ends before the connection
	// does: a single listener could fill the memory with 100 bytes for each that it sends.
	maxStreams = 32
	// streamBuffer is what a stream's reader may be behind, in bytes: four seconds of voice. Nobody reads the streams that we
	// did not ask for, so those fill up. The library's own limit is 1 MB.
	streamBuffer = 32 << 10
	// maxPaths bounds the addresses from which one connection's checks come. One is usual; somebody who moves between networks
	// has some more. The library keeps each, and searches them all at each check: a listener with 64 Ki ports, or with addresses
	// that are not theirs, could keep it busy. Who needs more after that connects anew.
	maxPaths = 128
)

// streams counts what the other side of one connection makes the library keep. Packets were authenticated before they get here, so nobody but
// the other side can.
type streams struct {
	flooded func()
	n       atomic.Int32
	paths   atomic.Int32
}

// path is webrtc.SettingEngine.SetRemoteIPFilter: it is asked once for each new address whose check was authentic, as no
// candidates are taken from offers.
func (s *streams) path(net.IP) bool { return s.paths.Add(1) <= maxPaths }

// buffer is webrtc.SettingEngine.BufferFactory. Beyond the limit there is no room for anything.
func (s *streams) buffer(packetio.BufferPacketType, uint32) io.ReadWriteCloser {
	b := lossy{packetio.NewBuffer()}
	switch n := s.n.Add(1); {
	case n <= maxStreams:
		b.SetLimitSize(streamBuffer)
		return b
	case n == maxStreams+1:
		s.flooded()
	}
	b.SetLimitSize(1)
	return b
}

// lossy drops what does not fit. The library ends a compound RTCP packet at the first stream that is full, and the NACK behind
// it would be lost.
type lossy struct{ *packetio.Buffer }

func (b lossy) Write(p []byte) (int, error) {
	n, err := b.Buffer.Write(p)
	if err == packetio.ErrFull { //nolint:errorlint // the library returns it bare
		return len(p), nil
	}
	return n, err
}
