package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"
)

// Shelf is where blobs stand: write once, by key. Tests put faults in between.
type Shelf interface {
	// Put stores data under key if nothing is there; what is there is kept, and that is no error. After nil it is durable.
	Put(ctx context.Context, key string, data []byte) error
	// Get reads a blob of at most maxSegment bytes. One that is missing is fs.ErrNotExist.
	Get(ctx context.Context, key string) ([]byte, error)
	// Keys lists all that begins with prefix, in ascending order.
	Keys(ctx context.Context, prefix string) ([]string, error)
	Close() error
}

// folder is a shelf in a folder of this machine.
type folder struct {
	dir    string
	bucket *blob.Bucket

	mu    sync.Mutex
	known map[string]bool // folders whose own entry in their parents is on disk
}

// Folder opens a shelf in a folder of this machine, made if absent.
func Folder(dir string) (Shelf, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{
		CreateDir:   true,
		DirFileMode: 0o700,
		NoTempDir:   true,                       // a rename must not cross file systems
		Metadata:    fileblob.MetadataDontWrite, // the name says it all; one file and one sync less
	})
	if err != nil {
		return nil, err
	}
	return &folder{dir: dir, bucket: bucket, known: map[string]bool{}}, nil
}

func (f *folder) Put(ctx context.Context, key string, data []byte) error {
	err := f.write(ctx, key, data)
	if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition { // that is: it exists, from an earlier try perhaps
		return err
	}
	return f.settle(path.Dir(key))
}

// write puts the content on disk before its name: a name is worth nothing if a power cut may leave it empty.
func (f *folder) write(ctx context.Context, key string, data []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var file *os.File
	w, err := f.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: "audio/mp4", // else it holds the first bytes back to guess
		IfNotExist:  true,
		BeforeWrite: func(as func(any) bool) error {
			if !as(&file) {
				return errors.New("the file cannot be reached to sync it")
			}
			return file.Chmod(0o600) // an event need not be listed; who may read it is not the umask's to say
		},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		cancel()      // makes Close throw the file away
		_ = w.Close() // says only that it was cancelled
		return err
	}
	return w.Close()
}

// settle puts the names on disk: the folder's entries, and the first time the folder's own name and its parents'.
func (f *folder) settle(sub string) error {
	f.mu.Lock()
	known := f.known[sub]
	f.mu.Unlock()
	if err := syncFolder(filepath.Join(f.dir, filepath.FromSlash(sub))); err != nil || known {
		return err
	}
	for up := path.Dir(sub); ; up = path.Dir(up) {
		if err := syncFolder(filepath.Join(f.dir, filepath.FromSlash(up))); err != nil {
			return err
		}
		if up == "." {
			break
		}
	}
	f.mu.Lock()
	f.known[sub] = true
	f.mu.Unlock()
	return nil
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *folder) Get(ctx context.Context, key string) ([]byte, error) {
	r, err := f.bucket.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	if r.Size() > maxSegment {
		return nil, fmt.Errorf("%w: %d bytes", errTooLong, r.Size())
	}
	data := make([]byte, r.Size())
	_, err = io.ReadFull(r, data)
	return data, err
}

var errTooLong = errors.New("longer than any segment")

// Keys reads the one folder that prefix names. The bucket's own listing walks the whole tree once per thousand keys.
func (f *folder) Keys(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(f.dir, filepath.FromSlash(path.Dir(prefix+"x"))))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			keys = append(keys, path.Join(path.Dir(prefix+"x"), e.Name()))
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (f *folder) Close() error { return f.bucket.Close() }
