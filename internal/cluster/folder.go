package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// folder is the data folder while this process holds it.
type folder struct {
	path string
	lock *os.File
}

// claim makes the folder if it must, and takes its lock.
func claim(path string) (*folder, error) {
	if path == "" {
		return nil, errors.New("no folder is given")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("it is not a folder: %w", err)
		}
		return nil, plain(err)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, plain(err) // a parent that may not be opened holds a folder that was there before
	}
	name := filepath.Join(path, "lock")
	// Where the folder is another user's and this process may do more than they, the name must not lead elsewhere.
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|openOwn, 0o600)
	if err != nil {
		return nil, plain(err)
	}
	// The kernel drops the lock with the process, so a crash leaves nothing behind that has to be cleared away.
	if err := tryLock(lock); err != nil {
		holder, _ := os.ReadFile(name) // only to say more
		_ = lock.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("it is in use by another process (%s); stop that one, or name another folder with --data",
				strings.TrimSpace("pid "+string(holder)))
		}
		return nil, fmt.Errorf("lock it: %w", err)
	}
	return &folder{path: path, lock: lock}, nil
}

// prepare proves that the folder is one of ours and can be written, and brings it to this program's version.
func (f *folder) prepare(by string, log *slog.Logger) error {
	have, err := f.judge(by)
	if err != nil {
		return err
	}
	if err := f.prove(); err != nil {
		return err
	}
	return f.bringUp(have, by, log)
}

// prove proves that the folder can be written, and says whose it is.
func (f *folder) prove() error {
	if err := f.probe(); err != nil {
		return plain(err)
	}
	if err := f.lock.Truncate(0); err == nil {
		_, _ = f.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0) // for whoever asks; the lock itself is the kernel's
	}
	return nil
}

// release gives the folder free for others.
func (f *folder) release() { _ = f.lock.Close() }

// probeSize is what must fit before writing is tried again: more than JetStream's own files take at a start.
const probeSize = 256 << 10

// probe proves that the folder can be written: it stores, syncs and removes a file.
func (f *folder) probe() error {
	name := filepath.Join(f.path, "probe")
	err := writeSynced(name, make([]byte, probeSize))
	if rerr := os.Remove(name); err == nil {
		err = rerr
	}
	return err
}

// node gives the node's name: the wanted one if there is one, else the stored one, else a new one. It is stored.
func (f *folder) node(want string) (string, error) {
	name := filepath.Join(f.path, "node")
	have, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's name: %w", err)
	}
	old := strings.TrimSpace(string(have))
	if want == "" && plainKey(old) {
		return old, nil
	}
	if want == "" {
		want = "n_" + token(8)
	}
	if !plainKey(want) {
		return "", fmt.Errorf("%q cannot be a node's name: use letters, digits, - and _", want)
	}
	if want == old {
		return want, nil
	}
	if err := WriteFile(name, []byte(want+"\n")); err != nil {
		return "", fmt.Errorf("store the node's name: %w", err)
	}
	return want, nil
}

// WriteFile stores a small file that only this user reads, in the place of one that may be there: whole or not at all. Commit
// point: the sync of its folder, after the rename. Afterwards there may be name.new, of a crash; the next call replaces it.
func WriteFile(name string, data []byte) error {
	temp := name + ".new"
	if err := writeSynced(temp, data); err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

// SyncFolder puts a folder's entries on disk: a file that was renamed has its new name for good only after that.
func SyncFolder(path string) error { return syncFolder(path) }

// token gives n random bytes in hex.
func token(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the program instead
	return hex.EncodeToString(b)
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncTree syncs every folder from path down.
func syncTree(path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // the engine removes temporary files of its own
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		return syncFolder(name)
	})
}

// onlyWrite says whether the engine broke because bytes were refused, in so many words. Then none of them counts as written, and
// a new engine cuts them off. Every other failure leaves open what the disk has.
func onlyWrite(cause error) bool {
	return cause != nil && strings.Contains(cause.Error(), " write "+string(filepath.Separator))
}

// renew writes every block file below path anew and syncs it, so that what is read from it is what the disk has.
func renew(path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".blk" {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		temp := filepath.Join(filepath.Dir(name), "renewed.tmp") // not "1.blk.new": the engine would take it for a block file
		if err := writeSynced(temp, data); err != nil {
			return errors.Join(err, os.Remove(temp))
		}
		if err := os.Rename(temp, name); err != nil {
			return err
		}
		return syncFolder(filepath.Dir(name))
	})
}

type trouble int

const (
	other trouble = iota
	full
	readOnly
)

// troubleOf tells the two troubles that have a name in plain words. The engine passes its own on as text only.
func troubleOf(err error) trouble {
	if err == nil {
		return other
	}
	text := err.Error()
	for _, e := range diskFull {
		if errors.Is(err, e) || strings.Contains(text, e.Error()) {
			return full
		}
	}
	for _, e := range diskReadOnly {
		if errors.Is(err, e) || strings.Contains(text, e.Error()) {
			return readOnly
		}
	}
	return other
}
