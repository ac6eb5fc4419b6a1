package sweep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// notSent bounds what the kernel holds of a socket beyond what is under way: three seconds of audio. More would hide minutes from the
	// cursor, and a slow listener would hear them all.
	notSent = 16 << 10
	// unacknowledged is how long the other side may be silent while data is under way to it, in milliseconds.
	unacknowledged = 30_000
)

// duplicate gives a second descriptor of a socket.
func duplicate(fd int) (int, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate a socket: %w", err)
	}
	return d, nil
}

// tune bounds what a connection may keep from us. Without that a listener is served all the same, only less well.
func tune(c *net.TCPConn) {
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unacknowledged)
	})
}

// hungUp says whether the other side has closed its connection, without taking anything out of it.
func hungUp(c *net.TCPConn) (gone bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return true
	}
	if err := rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	}); err != nil {
		return true
	}
	return gone
}

// writeFD writes what the socket takes: all, a part, or errBlocked. The raw system call spares the scheduler's bookkeeping, twice a
// write; the socket does not block.
func writeFD(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, errBlocked
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// readFD reads what has come: errBlocked if nothing has, io.EOF at the end.
func readFD(fd int, b []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EAGAIN:
			return 0, errBlocked
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// threadTime is the processor time that the present thread has had, in ns. (The wall would count what others took in between.)
func threadTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Descriptors is how many descriptors this process may open.
func Descriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}

// memoryShort says whether the machine has so little memory left that newcomers endanger those who are here.
func memoryShort() bool {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	total, left := meminfo(b)
	short := func(total, left uint64) bool { return total > 0 && left < max(total/50, 96<<10) }
	if short(total, left) {
		return true
	}
	// A container's own limit (cgroup v2), in bytes; what it has used includes pages of files, which the kernel gives up first.
	limit, used := number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")
	if stat, err := os.ReadFile("/sys/fs/cgroup/memory.stat"); err == nil {
		used -= min(used, field(stat, "inactive_file"))
	}
	return limit > 0 && short(limit>>10, (limit-min(limit, used))>>10)
}

// number reads a file that holds one; 0 if there is none.
func number(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return n
}

// field reads the number behind a name at the start of a line.
func field(b []byte, name string) uint64 {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) >= 2 && string(f[0]) == name {
			n, err := strconv.ParseUint(string(f[1]), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// meminfo reads what there is and what is available, in KiB.
func meminfo(b []byte) (total, left uint64) { return field(b, "MemTotal:"), field(b, "MemAvailable:") }
