// Package backup is the form of a backup: one tar file that a running server writes as a stream, and that is known to be whole, or not,
// once it has been read. It knows nothing of the store nor of the archive: they hand it their records and segments, and get them back.
//
// # The file
//
// A plain tar (POSIX ustar; nothing in it is worth compressing, as all but a few kilobytes are Opus), with these files, in this order:
//
//	earshot-backup/about.json                        [About]: versions, and what is in it
//	earshot-backup/records/{bucket}-{n, six digits}.jsonl   {"key": …, "value": …} a line, in the order of their last changes
//	earshot-backup/operator.key                      the operator's secret
//	earshot-backup/events/{event}/{n, ten digits}.m4s       the recordings' segments, ascending
//	earshot-backup/missing.json                      only if there are any: segments that the server could not read
//	earshot-backup/end.json                          how many files came before, and one SHA-256 over their names, lengths and bytes
//
// Only what has the last file, and agrees with it, is a backup: a file that was cut or damaged anywhere is none. The sum finds accidents.
// It is no signature: who can change the file can change the sum.
//
// # Whom the reader trusts
//
// Nobody. [Read] makes no path from a name: it takes names apart, refuses all that are not exactly as above, each bounded in length and in
// its place, and hands on an event's ID and a number. So nothing can point out of the folder, and no entry (links, devices, sparse files,
// headers of extended formats are refused) can grow beyond what it took in the file.
package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"time"
)

// Version is that of the file's form, apart from that of the data in it.
const Version = 1

// What one file of a backup may have in bytes at most.
const (
	maxAbout   = 64 << 10
	maxRecord  = 512 << 10 // a line
	maxRecords = 1 << 20   // a file of lines
	maxKey     = 1 << 10
	maxSegment = 4 << 20
	maxMissing = 1 << 20
	maxEnd     = 4 << 10
)

// The names.
const (
	root        = "earshot-backup/"
	aboutName   = root + "about.json"
	recordsName = root + "records/"
	keyName     = root + "operator.key"
	eventsName  = root + "events/"
	missingName = root + "missing.json"
	endName     = root + "end.json"
)

// About is what a backup says of itself.
type About struct {
	Version  int               `json:"earshot_backup"` // of the file's form; New fills it in
	Format   int               `json:"format"`         // of the data: see cluster.Format
	By       string            `json:"by"`             // the program that made it
	Made     time.Time         `json:"made"`
	Buckets  map[string]uint64 `json:"buckets"`            // the store's, and the highest revision in each: later ones go on above it
	Segments int               `json:"segments"`           // how many there were; some may have been deleted while they were written
	LeftOut  []string          `json:"left_out,omitempty"` // in words
}

// Segment names a segment of a recording.
type Segment struct {
	Event  string `json:"event"`
	Number uint64 `json:"number"`
}

// before says whether s comes before o in a backup.
func (s Segment) before(o Segment) bool {
	return s.Event < o.Event || s.Event == o.Event && s.Number < o.Number
}

// Summary says what went through a writer or a reader.
type Summary struct {
	About
	Records int
	Done    int       // segments
	Bytes   int64     // of all files
	Missing []Segment // what the server could not read, at most as many as fit
}

// end is the last file.
type end struct {
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	Sum   string `json:"sha256"`
}

// tally adds up what came before the last file.
type tally struct {
	sum   hash.Hash
	files int64
	bytes int64
}

func newTally() *tally { return &tally{sum: sha256.New()} }

func (t *tally) add(name string, data []byte) {
	var head [16]byte // both lengths, so that no bytes can move from one to the other
	binary.BigEndian.PutUint64(head[:8], uint64(len(name)))
	binary.BigEndian.PutUint64(head[8:], uint64(len(data)))
	t.sum.Write(head[:])
	t.sum.Write([]byte(name))
	t.sum.Write(data)
	t.files++
	t.bytes += int64(len(data))
}

func (t *tally) end() end {
	return end{Files: t.files, Bytes: t.bytes, Sum: hex.EncodeToString(t.sum.Sum(nil))}
}

// line is one record as it is written.
type line struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func recordsFile(bucket string, n int) string {
	return fmt.Sprintf("%s%s-%06d.jsonl", recordsName, bucket, n)
}

func segmentFile(s Segment) string {
	return fmt.Sprintf("%s%s/%010d.m4s", eventsName, s.Event, s.Number)
}

// plain says whether s is a name that needs no escaping anywhere: an event's ID, a record's key, a bucket.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}
