package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var be = binary.BigEndian

// Opcodes of WebSocket frames (RFC 6455, 5.2).
const (
	WSContinuation = 0
	WSText         = 1
	WSBinary       = 2
	WSClose        = 8
	WSPing         = 9
	WSPong         = 10
)

// maxFrame bounds a frame's payload: the longest there is, a burst of many parts, has under 100 KB.
const maxFrame = 4 << 20

var errWebSocket = errors.New("malformed WebSocket frame")

// Frame is a WebSocket frame from a server. Its payload points into what was read.
type Frame struct {
	Op      byte
	Fin     bool
	Payload []byte
}

// ReadFrame reads one frame. A server's frames are not masked (5.1).
func ReadFrame(b []byte) (f Frame, used int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	f.Op, f.Fin = b[0]&15, b[0]&0x80 != 0
	size, at := uint64(b[1]&0x7f), 2
	switch {
	case b[0]&0x70 != 0:
		return f, 0, fmt.Errorf("%w: reserved bits %#x", errWebSocket, b[0])
	case b[1]&0x80 != 0:
		return f, 0, fmt.Errorf("%w: masked", errWebSocket)
	case f.Op > WSBinary && f.Op < WSClose || f.Op > WSPong:
		return f, 0, fmt.Errorf("%w: opcode %d", errWebSocket, f.Op)
	case f.Op >= WSClose && (!f.Fin || size > 125):
		return f, 0, fmt.Errorf("%w: control frame", errWebSocket)
	case size == 126:
		if len(b) < 4 {
			return f, 0, nil
		}
		size, at = uint64(be.Uint16(b[2:])), 4
	case size == 127:
		if len(b) < 10 {
			return f, 0, nil
		}
		size, at = be.Uint64(b[2:]), 10
	}
	if size > maxFrame {
		return f, 0, fmt.Errorf("%w: %d bytes", errWebSocket, size)
	}
	if uint64(len(b)-at) < size {
		return f, 0, nil
	}
	f.Payload = b[at : at+int(size)]
	return f, at + int(size), nil
}

// CloseCode is the status of a close frame's payload (5.5.1), 1005 if it has none (7.1.5), and its reason.
func CloseCode(payload []byte) (code int, reason string) {
	if len(payload) < 2 {
		return 1005, ""
	}
	return int(be.Uint16(payload)), string(payload[2:])
}
