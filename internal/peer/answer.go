package peer

import (
	"fmt"
	"strings"
)

// polish puts right what the library's answer lacks or has too much of: Opus parameters say what we want, not what the offer
// said (RFC 7587, 7.1: they are the receiver's); a rejected section keeps its mid (RFC 9429, 5.3.1) and says inactive; there is no
// second component, as RTCP is multiplexed.
func (o *Offer) polish(answer, fmtp string) []byte {
	var (
		out      strings.Builder
		section  = -1
		rejected bool
		ours     = fmt.Sprintf("a=fmtp:%d ", o.Opus)
	)
	out.Grow(len(answer) + 128)
	end := func() {
		if !rejected {
			return
		}
		if section < len(o.Media) && o.Media[section].Mid != "" {
			fmt.Fprintf(&out, "a=mid:%s\r\n", o.Media[section].Mid)
		}
		out.WriteString("a=inactive\r\n")
	}
	for l := range strings.Lines(answer) {
		l = strings.TrimRight(l, "\r\n")
		switch {
		case l == "":
			continue
		case strings.HasPrefix(l, "m="):
			end()
			section++
			f := strings.Fields(l)
			rejected = len(f) > 1 && f[1] == "0"
		case rejected && (strings.HasPrefix(l, "a=mid:") || l == "a=inactive"):
			continue
		case strings.HasPrefix(l, ours) && fmtp != "":
			l = ours + fmtp
		case strings.HasPrefix(l, "a=candidate:"):
			if f := strings.Fields(l); len(f) > 1 && f[1] != "1" {
				continue
			}
		}
		out.WriteString(l)
		out.WriteString("\r\n")
	}
	end()
	return []byte(out.String())
}
