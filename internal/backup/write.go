package backup

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Writer writes one backup: records first, then the operator's key, then segments, then Close. What it does not get to close is no backup.
type Writer struct {
	tar   *tar.Writer
	tally *tally
	made  time.Time
	err   error // the first; everything after it is refused

	bucket string // whose lines are gathered
	part   int    // how many files of lines that bucket has
	lines  []byte

	missing []Segment
	size    int // of missing, as JSON
}

// NewWriter begins a backup.
func NewWriter(w io.Writer, about About) (*Writer, error) {
	about.Version, about.Made = Version, about.Made.UTC()
	b := &Writer{tar: tar.NewWriter(w), tally: newTally(), made: about.Made.Truncate(time.Second)}
	data, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("begin backup: %w", err)
	}
	return b, b.file(aboutName, append(data, '\n'), maxAbout)
}

// file writes one file.
func (b *Writer) file(name string, data []byte, most int) error {
	if b.err != nil {
		return b.err
	}
	if len(data) > most {
		b.err = fmt.Errorf("write %s: %d bytes are more than the %d that a backup takes there", name, len(data), most)
		return b.err
	}
	err := b.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o600, ModTime: b.made, Format: tar.FormatUSTAR,
	})
	if err == nil {
		_, err = b.tar.Write(data)
	}
	if err != nil {
		b.err = fmt.Errorf("write %s: %w", name, err)
		return b.err
	}
	b.tally.add(name, data)
	return nil
}

// Record writes one record of the store. A bucket's records come one after another.
func (b *Writer) Record(bucket, key string, value json.RawMessage) error {
	data, err := json.Marshal(line{key, value})
	if err != nil || len(data) >= maxRecord || !plain(bucket) {
		b.err = errors.Join(b.err, fmt.Errorf("write record %s %q of %d bytes: %w", bucket, key, len(data), errors.Join(errUnfit, err)))
		return b.err
	}
	if bucket != b.bucket || len(b.lines)+len(data)+1 > maxRecords {
		if err := b.flush(); err != nil {
			return err
		}
		if bucket != b.bucket {
			b.bucket, b.part = bucket, 0
		}
	}
	b.lines = append(append(b.lines, data...), '\n')
	return b.err
}

var errUnfit = errors.New("it does not fit into a backup")

// flush writes the lines that were gathered.
func (b *Writer) flush() error {
	if len(b.lines) == 0 {
		return b.err
	}
	b.part++
	err := b.file(recordsFile(b.bucket, b.part), b.lines, maxRecords)
	b.lines = b.lines[:0]
	return err
}

// OperatorKey writes the operator's secret, after all records.
func (b *Writer) OperatorKey(key string) error {
	if err := b.flush(); err != nil {
		return err
	}
	return b.file(keyName, []byte(key+"\n"), maxKey)
}

// Segment writes a segment, after the operator's key, in ascending order of events' IDs and of numbers.
func (b *Writer) Segment(s Segment, data []byte) error {
	if !plain(s.Event) || len(data) == 0 {
		b.err = errors.Join(b.err, fmt.Errorf("write segment %d of %q, %d bytes: %w", s.Number, s.Event, len(data), errUnfit))
		return b.err
	}
	return b.file(segmentFile(s), data, maxSegment)
}

// Missing says that a segment could not be read. It is no end of the backup: one bad sector must not forbid them all.
func (b *Writer) Missing(s Segment) {
	if b.size += len(s.Event) + 64; b.size < maxMissing {
		b.missing = append(b.missing, s)
	}
}

// Close writes the end. Only now it is a backup.
func (b *Writer) Close() error {
	if err := b.flush(); err != nil {
		return err
	}
	if len(b.missing) > 0 {
		data, err := json.Marshal(b.missing)
		if err != nil {
			return fmt.Errorf("end backup: %w", err)
		}
		if err := b.file(missingName, data, maxMissing); err != nil {
			return err
		}
	}
	data, err := json.Marshal(b.tally.end())
	if err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	if err := b.file(endName, append(data, '\n'), maxEnd); err != nil {
		return err
	}
	if err := b.tar.Close(); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	return nil
}
