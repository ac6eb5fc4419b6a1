//go:build !windows

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// What a system says of a disk that takes nothing more.
var (
	diskFull     = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
	diskReadOnly = []syscall.Errno{syscall.EROFS, syscall.EACCES, syscall.EPERM}
)

// openOwn opens no symbolic link.
const openOwn = syscall.O_NOFOLLOW

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

// giveTo makes a tree, and one file more, belong to whom a folder belongs to, where this process may do that: who restores as root
// restores for the user as whom the server runs.
func giveTo(folder, tree, file string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	give := func(name string) error { return os.Lchown(name, int(owner.Uid), int(owner.Gid)) }
	err = filepath.WalkDir(tree, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return give(name)
	})
	return errors.Join(err, give(file))
}
