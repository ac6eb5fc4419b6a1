package cluster

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// What the system says of a disk that takes nothing more.
var (
	diskFull     = []syscall.Errno{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL}
	diskReadOnly = []syscall.Errno{windows.ERROR_WRITE_PROTECT, windows.ERROR_ACCESS_DENIED}
)

// openOwn asks for nothing here: links need rights of their own.
const openOwn = 0

// errLocked is another's lock.
const errLocked = windows.ERROR_LOCK_VIOLATION

// tryLock locks a file for this process, at once or not at all. What is locked is a byte far behind what it says: others may read that.
func tryLock(f *os.File) error {
	at := windows.Overlapped{OffsetHigh: 1}
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
}

// syncFolder has nothing to call: NTFS keeps names in a journal of its own, and writes that when it likes. So after a power cut, unlike
// elsewhere, the last names may be missing.
func syncFolder(path string) error {
	_, err := os.Stat(path)
	return err
}

// giveTo has nothing to do: files inherit who may use them from their folder.
func giveTo(_, _, _ string) error { return nil }
