package fan_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"earshot/internal/rig"
)

// GStreamer's webrtcbin, which shares no code with us nor with browsers, hears the programme at every packet length, unbroken.
func TestForeignListener(t *testing.T) {
	h := newHouse(t)
	web := http.NewServeMux()
	web.HandleFunc("POST /whep", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		packet, _ := strconv.Atoi(r.URL.Query().Get("packet"))
		id, answer, err := h.fan.WHEP(r.Context(), h.source(), body, packet)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			t.Errorf("refused: %v\n%s", err, body)
			return
		}
		w.Header().Set("Location", "/session/"+id)
		w.Header().Set("Content-Type", "application/sdp")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(answer)
	})
	web.HandleFunc("DELETE /session/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !h.fan.EndWHEP(r.PathValue("id")) {
			t.Error("the session is not there")
		}
	})
	server := httptest.NewServer(web)
	t.Cleanup(server.Close)
	for _, ms := range []string{"20", "60", "120"} {
		t.Run(ms+" ms", func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "heard")
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()
			gst := exec.CommandContext(ctx, "/usr/bin/python3", "../rig/testdata/webrtcbin.py", "whep", server.URL+"/whep?packet="+ms, "4", file)
			var said bytes.Buffer
			gst.Stdout, gst.Stderr = &said, &said
			if err := gst.Run(); err != nil || !strings.Contains(said.String(), "deleted 200") {
				t.Fatalf("GStreamer: %v\n%s", err, said.String())
			}
			raw, err := os.ReadFile(file)
			must(t, err)
			pcm := make([]float32, len(raw)/2)
			for i := range pcm {
				pcm[i] = float32(int16(binary.LittleEndian.Uint16(raw[2*i:]))) / 32768
			}
			if len(pcm) < 2*48000 {
				t.Fatalf("heard %d samples", len(pcm))
			}
			pcm = pcm[len(pcm)-2*48000+4800 : len(pcm)-4800]
			if level := rig.Goertzel(pcm, toneHz); level < -25 {
				t.Errorf("the tone is at %.1f dBFS", level)
			}
			if holes := rig.Holes(pcm, -40, 480); len(holes) > 0 {
				t.Errorf("holes: %v", holes)
			}
		})
	}
}
