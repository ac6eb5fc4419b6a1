package rtc_test

import (
	"os"
	"testing"
)

// browser is an offer of Chromium for one sendrecv audio track.
var browser string

func TestMain(m *testing.M) {
	b, err := os.ReadFile("../peer/testdata/offers/chromium-studio.sdp")
	if err != nil {
		panic(err)
	}
	browser = string(b)
	os.Exit(m.Run())
}
