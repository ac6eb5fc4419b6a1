package backup

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Sink takes what a backup holds, in its order. What it gets is not yet known to be whole: only [Read]'s return says that, so a sink
// prepares, and keeps nothing before. data is its own. An error of its own ends the reading, and is returned.
type Sink interface {
	About(About) error
	Record(bucket, key string, value json.RawMessage) error
	OperatorKey(key string) error
	Segment(s Segment, data []byte) error
}

// The ways in which a file is no backup.
var (
	ErrCut     = errors.New("the backup is cut off: its end is missing. Make it anew, or take another one")
	ErrDamaged = errors.New("the backup is damaged. Take another one")
	ErrForeign = errors.New("this is not a backup that 'earshot backup' made")
	ErrNewer   = errors.New("the backup was made by a newer Earshot: restore it with that version")
)

// place is where in a backup's order a file stands.
type place int

const (
	atAbout place = iota
	atRecords
	atKey
	atSegments
	atMissing
	atEnd
)

// reader is one reading.
type reader struct {
	tar   *tar.Reader
	sink  Sink // may be nil: then it only checks
	tally *tally
	sum   Summary

	at     place
	bucket string // of the last file of records
	part   int
	last   Segment
}

// Read reads a backup to its end and returns nil only if it is whole. sink may be nil. Errors wrap [ErrCut], [ErrDamaged], [ErrForeign] or
// [ErrNewer] where it is the backup's fault; others are the source's or the sink's.
func Read(src io.Reader, sink Sink) (Summary, error) {
	faulty := &source{r: src}
	r := &reader{tar: tar.NewReader(faulty), sink: sink, tally: newTally(), at: -1}
	for r.at < atEnd {
		if err := r.next(); err != nil {
			switch {
			case faulty.err != nil: // not the file, but the disk or the network it comes from
				return r.sum, fmt.Errorf("read backup: %w", faulty.err)
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				if r.at < 0 {
					err = ErrForeign
				} else {
					err = ErrCut
				}
			case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath):
				if r.at < 0 {
					err = ErrForeign
				} else {
					err = fmt.Errorf("%w (%w)", ErrDamaged, err)
				}
			}
			return r.sum, err
		}
	}
	r.sum.Bytes = r.tally.bytes
	return r.sum, nil
}

// source remembers why reading failed, if that was not the end.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // a cut response is a cut backup
		s.err = err
	}
	return n, err
}

// next takes one file.
func (r *reader) next() error {
	h, err := r.tar.Next()
	if err != nil {
		return err
	}
	where, most := placeOf(h.Name)
	switch {
	case where < 0, h.Typeflag != tar.TypeReg, len(h.PAXRecords) > 0: // pax headers can make an entry longer than its bytes
		if r.at < 0 {
			return ErrForeign
		}
		return fmt.Errorf("%w (there is a file %q in it that does not belong there)", ErrDamaged, short(h.Name))
	case r.at < 0 && where != atAbout:
		return ErrForeign
	case where < r.at, where == r.at && where != atRecords && where != atSegments, where > atKey && r.at < atKey:
		return fmt.Errorf("%w (%q is not in its place)", ErrDamaged, short(h.Name))
	case h.Size > int64(most):
		return fmt.Errorf("%w (%q has %d bytes)", ErrDamaged, short(h.Name), h.Size)
	}
	data := make([]byte, h.Size)
	if _, err := io.ReadFull(r.tar, data); err != nil {
		return fmt.Errorf("read %q: %w", short(h.Name), err)
	}
	r.at = where
	if where == atEnd {
		return r.end(data)
	}
	r.tally.add(h.Name, data)
	if err := r.take(h.Name, where, data); err != nil {
		return err
	}
	return nil
}

// placeOf gives a file's place and the most bytes that it may have; -1 for a name that no backup has.
func placeOf(name string) (place, int) {
	switch {
	case name == aboutName:
		return atAbout, maxAbout
	case strings.HasPrefix(name, recordsName):
		return atRecords, maxRecords
	case name == keyName:
		return atKey, maxKey
	case strings.HasPrefix(name, eventsName):
		return atSegments, maxSegment
	case name == missingName:
		return atMissing, maxMissing
	case name == endName:
		return atEnd, maxEnd
	}
	return -1, 0
}

func (r *reader) take(name string, where place, data []byte) error {
	switch where {
	case atAbout:
		return r.about(data)
	case atRecords:
		return r.records(name, data)
	case atKey:
		key := strings.TrimSuffix(string(data), "\n")
		if len(key) < 20 || !plain(key) {
			return fmt.Errorf("%w (the operator's key in it is none)", ErrDamaged)
		}
		if r.sink == nil {
			return nil
		}
		return r.sink.OperatorKey(key)
	case atSegments:
		return r.segment(name, data)
	case atMissing:
		if json.Unmarshal(data, &r.sum.Missing) != nil {
			return fmt.Errorf("%w (its list of missing segments cannot be read)", ErrDamaged)
		}
	}
	return nil
}

func (r *reader) about(data []byte) error {
	var version struct {
		Version int `json:"earshot_backup"`
	}
	if err := json.Unmarshal(data, &version); err != nil || version.Version < 1 {
		return ErrForeign
	}
	if version.Version > Version {
		return fmt.Errorf("%w (its form is version %d; this Earshot knows %d)", ErrNewer, version.Version, Version)
	}
	if err := json.Unmarshal(data, &r.sum.About); err != nil || r.sum.Format < 1 {
		return fmt.Errorf("%w (it does not say what is in it)", ErrDamaged)
	}
	for name := range r.sum.Buckets {
		if !plain(name) {
			return fmt.Errorf("%w (it names a bucket %q)", ErrDamaged, short(name))
		}
	}
	if r.sink == nil {
		return nil
	}
	return r.sink.About(r.sum.About)
}

// records takes a file of lines.
func (r *reader) records(name string, data []byte) error {
	stem := strings.TrimSuffix(strings.TrimPrefix(name, recordsName), ".jsonl")
	dash := max(strings.LastIndexByte(stem, '-'), 0)
	bucket := stem[:dash]
	if bucket != r.bucket {
		r.bucket, r.part = bucket, 0
	}
	r.part++
	n, err := strconv.Atoi(strings.TrimPrefix(stem[dash:], "-"))
	if _, known := r.sum.Buckets[bucket]; err != nil || !known || n != r.part || name != recordsFile(bucket, n) {
		return fmt.Errorf("%w (%q is not in its place)", ErrDamaged, short(name))
	}
	for rest := data; len(rest) > 0; {
		one, after, whole := bytes.Cut(rest, []byte("\n"))
		var l line
		if !whole || len(one) >= maxRecord || json.Unmarshal(one, &l) != nil || !plain(l.Key) || len(l.Value) == 0 {
			return fmt.Errorf("%w (%q has a line that is no record)", ErrDamaged, short(name))
		}
		r.sum.Records++
		if r.sink != nil {
			if err := r.sink.Record(bucket, l.Key, l.Value); err != nil {
				return err
			}
		}
		rest = after
	}
	return nil
}

// segment takes a segment. They ascend, so none comes twice.
func (r *reader) segment(name string, data []byte) error {
	event, file, _ := strings.Cut(strings.TrimPrefix(name, eventsName), "/")
	n, err := strconv.ParseUint(strings.TrimSuffix(file, ".m4s"), 10, 64)
	s := Segment{Event: event, Number: n}
	if err != nil || !plain(event) || name != segmentFile(s) || len(data) == 0 || !r.last.before(s) {
		return fmt.Errorf("%w (%q is not in its place)", ErrDamaged, short(name))
	}
	r.last = s
	r.sum.Done++
	if r.sink == nil {
		return nil
	}
	return r.sink.Segment(s, data)
}

func (r *reader) end(data []byte) error {
	var e end
	if json.Unmarshal(data, &e) != nil || e != r.tally.end() {
		return fmt.Errorf("%w (its sum does not agree with what is in it)", ErrDamaged)
	}
	return nil
}

// short makes a name of a file that anybody may have made fit for a terminal.
func short(name string) string { return strings.ToValidUTF8(name[:min(len(name), 80)], "?") }
