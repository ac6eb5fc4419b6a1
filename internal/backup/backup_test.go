package backup_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"earshot/internal/backup"
)

const key = "eo_abcdefghijklmnopqrstuvwxyz"

// kept is a sink that remembers.
type kept struct {
	about    backup.About
	records  map[string]string
	key      string
	segments map[backup.Segment]string
	fail     error
}

func (k *kept) About(a backup.About) error {
	k.about, k.records, k.segments = a, map[string]string{}, map[backup.Segment]string{}
	return nil
}

func (k *kept) Record(bucket, key string, value json.RawMessage) error {
	k.records[bucket+"/"+key] = string(value)
	return nil
}

func (k *kept) OperatorKey(key string) error { k.key = key; return nil }

func (k *kept) Segment(s backup.Segment, data []byte) error {
	k.segments[s] = string(data)
	return k.fail
}

var (
	about = backup.About{
		Format: 1, By: "v1", Made: time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC),
		Buckets: map[string]uint64{"events": 9, "in-vites": 4, "leases": 3}, Segments: 3, LeftOut: []string{"sessions"},
	}
	segments = []backup.Segment{{"ev_a", 1}, {"ev_a", 12_345_678_901}, {"ev_a-b", 0}}
)

// write makes a backup. records is how many are in its first bucket.
func write(t testing.TB, records int, missing ...backup.Segment) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, about)
	for i := range records {
		err = errors.Join(err, w.Record("events", fmt.Sprint("e-", i), fmt.Appendf(nil, `{"title":%q}`, strings.Repeat("ö", i%500))))
	}
	err = errors.Join(err, w.Record("in-vites", "abc", []byte(`{"role":"host"}`)), w.OperatorKey(key))
	for i, s := range segments {
		err = errors.Join(err, w.Segment(s, bytes.Repeat([]byte{byte(i + 1)}, 700)))
	}
	for _, s := range missing {
		w.Missing(s)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestThereAndBack(t *testing.T) {
	gone := backup.Segment{Event: "ev_a", Number: 7}
	whole := write(t, 5000, gone) // more than one file of records
	for _, src := range []io.Reader{bytes.NewReader(whole), iotest.OneByteReader(bytes.NewReader(whole)), iotest.DataErrReader(bytes.NewReader(whole))} {
		k := &kept{}
		sum, err := backup.Read(src, k)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Records != 5001 || sum.Done != 3 || len(sum.Missing) != 1 || sum.Missing[0] != gone || sum.Bytes < 2_000_000 {
			t.Errorf("summary %+v", sum)
		}
		if k.key != key || len(k.records) != 5001 || k.records["events/e-3"] != `{"title":"ööö"}` || k.records["in-vites/abc"] != `{"role":"host"}` {
			t.Errorf("key %q, %d records, %q", k.key, len(k.records), k.records["events/e-3"])
		}
		if len(k.segments) != 3 || k.segments[segments[1]] != strings.Repeat("\x02", 700) {
			t.Errorf("segments %v", k.segments)
		}
		if k.about.Version != backup.Version || k.about.By != "v1" || !maps.Equal(k.about.Buckets, about.Buckets) || !k.about.Made.Equal(about.Made) {
			t.Errorf("about %+v", k.about)
		}
	}
	if sum, err := backup.Read(bytes.NewReader(whole), nil); err != nil || sum.Records != 5001 {
		t.Errorf("checked: %+v, %v", sum, err)
	}
}

// A backup that ends anywhere before its end, or in which any byte of a name, a length or the content changed, is none.
func TestCutAndDamaged(t *testing.T) {
	whole := write(t, 3)
	end := bytes.Index(whole, []byte("earshot-backup/end.json"))
	for n := range len(whole) {
		_, err := backup.Read(bytes.NewReader(whole[:n]), nil)
		switch {
		case n < 512+1 && !errors.Is(err, backup.ErrForeign) && !errors.Is(err, backup.ErrCut), n > 1024 && n < end+512 && !errors.Is(err, backup.ErrCut):
			t.Fatalf("cut after %d of %d bytes: %v", n, len(whole), err)
		case err == nil && n < end+512+100:
			t.Fatalf("cut after %d of %d bytes: no error", n, len(whole))
		}
	}
	// Padding and what a header says of times and owners carries nothing: there a change may pass. All else must not.
	same := &kept{}
	if _, err := backup.Read(bytes.NewReader(whole), same); err != nil {
		t.Fatal(err)
	}
	caught := 0
	for at := range len(whole) {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x20
		k := &kept{}
		if _, err := backup.Read(bytes.NewReader(bad), k); err == nil {
			if k.key != same.key || !maps.Equal(k.records, same.records) || !maps.Equal(k.segments, same.segments) || k.about.By != same.about.By {
				t.Fatalf("a change of byte %d passed, and changed what is restored", at)
			}
			continue
		}
		caught++
	}
	if caught < len(whole)/3 {
		t.Errorf("of %d changed bytes only %d were noticed", len(whole), caught)
	}
}

// One that somebody made to do harm is refused, whatever its sum says.
func TestForged(t *testing.T) {
	type entry struct {
		h    tar.Header
		body string
	}
	file := func(name, body string) entry {
		return entry{tar.Header{Name: "earshot-backup/" + name, Typeflag: tar.TypeReg}, body}
	}
	first := file("about.json", `{"earshot_backup":1,"format":1,"buckets":{"events":2}}`)
	secret := file("operator.key", key+"\n")
	for _, x := range []struct {
		name string
		list []entry
		want error
	}{
		{"nothing", nil, backup.ErrForeign},
		{"another's tar", []entry{{tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg}, "x"}}, backup.ErrForeign},
		{"newer", []entry{file("about.json", `{"earshot_backup":2}`)}, backup.ErrNewer},
		{"no about", []entry{secret}, backup.ErrForeign},
		{"no format", []entry{file("about.json", `{"earshot_backup":1}`)}, backup.ErrDamaged},
		{"no end", []entry{first, secret}, backup.ErrCut},
		{"absolute", []entry{first, {tar.Header{Name: "/etc/cron.d/x", Typeflag: tar.TypeReg}, "x"}}, backup.ErrDamaged},
		{"up", []entry{first, secret, file("events/../../x/0000000001.m4s", "x")}, backup.ErrDamaged},
		{"up in an event", []entry{first, secret, file("events/../0000000001.m4s", "x")}, backup.ErrDamaged},
		{"no event", []entry{first, secret, file("events//0000000001.m4s", "x")}, backup.ErrDamaged},
		{"short number", []entry{first, secret, file("events/ev_a/1.m4s", "x")}, backup.ErrDamaged},
		{"huge number", []entry{first, secret, file("events/ev_a/99999999999999999999999.m4s", "x")}, backup.ErrDamaged},
		{"twice", []entry{first, secret, file("events/ev_a/0000000002.m4s", "x"), file("events/ev_a/0000000002.m4s", "y")}, backup.ErrDamaged},
		{"empty", []entry{first, secret, file("events/ev_a/0000000002.m4s", "")}, backup.ErrDamaged},
		{"long", []entry{first, secret, file("events/ev_a/0000000002.m4s", strings.Repeat("x", 4<<20+1))}, backup.ErrDamaged},
		{"link", []entry{first, secret, {tar.Header{Name: "earshot-backup/events/ev_a/0000000002.m4s", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""}}, backup.ErrDamaged},
		{"pax", []entry{first, {tar.Header{Name: "earshot-backup/operator.key", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"VENDOR.x": "1"}}, key}}, backup.ErrDamaged},
		{"unknown bucket", []entry{first, file("records/other-000001.jsonl", `{"key":"a","value":1}`+"\n")}, backup.ErrDamaged},
		{"no number", []entry{first, file("records/events.jsonl", `{"key":"a","value":1}`+"\n")}, backup.ErrDamaged},
		{"not the first", []entry{first, file("records/events-000002.jsonl", `{"key":"a","value":1}`+"\n")}, backup.ErrDamaged},
		{"no line", []entry{first, file("records/events-000001.jsonl", `{"key":"a","value":1}`)}, backup.ErrDamaged},
		{"a key that is a path", []entry{first, file("records/events-000001.jsonl", `{"key":"../a","value":1}`+"\n")}, backup.ErrDamaged},
		{"a key that is a subject", []entry{first, file("records/events-000001.jsonl", `{"key":"a.>","value":1}`+"\n")}, backup.ErrDamaged},
		{"records late", []entry{first, secret, file("records/events-000001.jsonl", `{"key":"a","value":1}`+"\n")}, backup.ErrDamaged},
		{"segments early", []entry{first, file("events/ev_a/0000000002.m4s", "x")}, backup.ErrDamaged},
		{"weak key", []entry{first, file("operator.key", "1234\n")}, backup.ErrDamaged},
		{"about twice", []entry{first, first}, backup.ErrDamaged},
		{"a wrong sum", []entry{first, secret, file("end.json", `{"files":2,"bytes":1,"sha256":"00"}`)}, backup.ErrDamaged},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range x.list {
			e.h.Size = int64(len(e.body))
			if err := w.WriteHeader(&e.h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, e.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Read(&b, &kept{}); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
	}
}

// An entry that says it has holes is a gigabyte in a kilobyte: it is refused before it is read.
func TestSparse(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	about := `{"earshot_backup":1,"format":1}`
	if err := w.WriteHeader(&tar.Header{Name: "earshot-backup/about.json", Typeflag: tar.TypeReg, Size: int64(len(about))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, about); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	// An old GNU sparse header by hand: no data, and a real size of 1 GiB.
	var h [512]byte
	copy(h[:], "earshot-backup/operator.key")
	copy(h[100:], "0000600\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "10000000000\x0000000000000\x00") // one piece, empty, at the end
	copy(h[483:], "10000000000\x00")
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b.Write(h[:])
	b.Write(make([]byte, 1024))
	if _, err := backup.Read(&b, &kept{}); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("%v, want damaged", err)
	}
}

// What is not the backup's fault is not called so.
func TestOthersFaults(t *testing.T) {
	whole := write(t, 3)
	if _, err := backup.Read(io.MultiReader(bytes.NewReader(whole[:3000]), iotest.ErrReader(syscall.EIO)), nil); !errors.Is(err, syscall.EIO) || errors.Is(err, backup.ErrCut) {
		t.Errorf("a disk that fails: %v", err)
	}
	full := errors.New("full")
	if _, err := backup.Read(bytes.NewReader(whole), &kept{fail: full}); !errors.Is(err, full) || errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a sink that fails: %v", err)
	}
	for n := range 5 {
		w, err := backup.NewWriter(&short{n * 1000}, about)
		if err == nil {
			err = errors.Join(w.Record("events", "e", []byte(`1`)), w.OperatorKey(key), w.Segment(segments[0], []byte("x")), w.Close())
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk: %v", err)
		}
	}
}

// short takes some bytes.
type short struct{ left int }

func (s *short) Write(p []byte) (int, error) {
	if len(p) > s.left {
		return 0, syscall.ENOSPC
	}
	s.left -= len(p)
	return len(p), nil
}

// What the reader takes for whole can be written again, and is read again as the same.
func FuzzRead(f *testing.F) {
	f.Add(write(f, 3))
	f.Add(write(f, 0, backup.Segment{Event: "ev_a", Number: 1}))
	f.Add(write(f, 2)[:4000])
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &kept{}
		sum, err := backup.Read(bytes.NewReader(b), k)
		if err != nil {
			return
		}
		if sum.Bytes > int64(len(b)) {
			t.Errorf("%d bytes came of %d", sum.Bytes, len(b))
		}
		for s := range k.segments {
			if strings.ContainsAny(s.Event, "/.\\") || s.Event == "" {
				t.Errorf("a segment of event %q", s.Event)
			}
		}
		for name := range k.records {
			if strings.Count(name, "/") != 1 || strings.Contains(name, ".") {
				t.Errorf("a record %q", name)
			}
		}
	})
}
