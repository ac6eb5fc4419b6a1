package backup

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

// taken is a sink that remembers, and can be written again.
type taken struct {
	about    About
	records  [][3]string
	key      string
	order    []Segment
	segments map[Segment]string
}

func (k *taken) About(a About) error { k.about = a; return nil }

func (k *taken) Record(bucket, key string, value json.RawMessage) error {
	k.records = append(k.records, [3]string{bucket, key, string(value)})
	return nil
}

func (k *taken) OperatorKey(key string) error { k.key = key; return nil }

func (k *taken) Segment(s Segment, data []byte) error {
	if k.segments == nil {
		k.segments = map[Segment]string{}
	}
	k.order, k.segments[s] = append(k.order, s), string(data)
	return nil
}

// Whatever files somebody puts into a tar with a sum that agrees: what the reader hands on is a name and no path, and what it takes for
// whole can be written again and is then read as the same.
func FuzzContents(f *testing.F) {
	about := []byte(`{"earshot_backup":1,"format":1,"by":"v1","made":"2026-11-28T18:00:00Z","buckets":{"events":9,"in-vites":2},"segments":1}`)
	lines := []byte(`{"key":"town-hall","value":{"title":"Town hall"}}` + "\n" + `{"key":"b","value":1}` + "\n")
	secret := []byte("eo_abcdefghijklmnopqrstuvwxyz\n")
	f.Add(about, "records/events-000001.jsonl", lines, "operator.key", secret, "events/ev_a/0000000001.m4s", []byte("sound"))
	f.Add(about, "records/in-vites-000001.jsonl", lines, "operator.key", secret, "missing.json", []byte(`[{"event":"ev_a","number":3}]`))
	f.Add(about, "operator.key", secret, "events/ev_a/0000000001.m4s", []byte("a"), "events/ev_a/0000000002.m4s", []byte("b"))
	f.Add(about, "operator.key", secret, "events/../../x/0000000001.m4s", []byte("a"), "../x", []byte("b"))
	f.Fuzz(func(t *testing.T, about []byte, name1 string, file1 []byte, name2 string, file2 []byte, name3 string, file3 []byte) {
		var b bytes.Buffer
		w, sum := tar.NewWriter(&b), newTally()
		put := func(name string, data []byte) bool {
			err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: root + name, Size: int64(len(data)), Format: tar.FormatUSTAR})
			if err == nil {
				_, err = w.Write(data)
			}
			return err == nil
		}
		for _, e := range []struct {
			name string
			data []byte
		}{{"about.json", about}, {name1, file1}, {name2, file2}, {name3, file3}} {
			if !put(e.name, e.data) {
				return // no tar has such a name
			}
			sum.add(root+e.name, e.data)
		}
		end, err := json.Marshal(sum.end())
		if err != nil || !put("end.json", end) || w.Close() != nil {
			t.Fatal("the end could not be written")
		}
		var k taken
		was, err := Read(&b, &k)
		if err != nil {
			return
		}
		for _, s := range k.order {
			if s.Event == "" || strings.Trim(s.Event, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
				t.Fatalf("a segment of event %q", s.Event)
			}
		}
		for _, r := range k.records {
			if !plain(r[0]) || !plain(r[1]) || !json.Valid([]byte(r[2])) {
				t.Fatalf("a record %q", r)
			}
		}
		if k.about.Made.Year() < 1970 || k.about.Made.Year() > 2200 {
			return // no tar has such a time
		}
		b.Reset()
		again, err := NewWriter(&b, k.about)
		for _, r := range k.records {
			if err == nil {
				err = again.Record(r[0], r[1], []byte(r[2]))
			}
		}
		if err == nil {
			err = again.OperatorKey(k.key)
		}
		for _, s := range k.order {
			if err == nil {
				err = again.Segment(s, []byte(k.segments[s]))
			}
		}
		for _, s := range was.Missing {
			again.Missing(s)
		}
		if err == nil {
			err = again.Close()
		}
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		var l taken
		now, err := Read(&b, &l)
		if err != nil || now.Records != was.Records || now.Done != was.Done || l.key != k.key || !maps.Equal(l.segments, k.segments) {
			t.Fatalf("written again it is %+v with %+v, %v; was %+v with %+v", now, l, err, was, k)
		}
	})
}
