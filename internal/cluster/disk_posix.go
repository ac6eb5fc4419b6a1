//go:build !windows

package cluster

import (
	"errors"
	"os"
	"syscall"
)

// What a system says of a disk that takes nothing more.
var (
	diskFull     = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
	diskReadOnly = []syscall.Errno{syscall.EROFS, syscall.EACCES, syscall.EPERM}
)

// errLocked is another's lock.
const errLocked = syscall.EWOULDBLOCK

// tryLock locks a file for this process, at once or not at all.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// syncFolder puts a folder's entries on disk: POSIX promises a file's content by fsync, its name only by the folder's.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
