package tally

// Tally is what was counted, since the beginning or in one second.
type Tally struct {
	Due      int64 `json:"due"`      // whose time to come had come
	Dialed   int64 `json:"dialed"`   // connections begun, returns included
	Joined   int64 `json:"joined"`   // listeners that heard something; each once
	Rejoined int64 `json:"rejoined"` // came back and heard something again
	Left     int64 `json:"left"`     // of their own will

	Failed map[string]int64 `json:"failed,omitempty"` // attempts that came to nothing, by reason
	Lost   map[string]int64 `json:"lost,omitempty"`   // listeners who were listening and were cut off, by reason

	Gaps       int64 `json:"gaps"`        // underruns of the modelled players' buffers
	GapUS      int64 `json:"gap_us"`      // their time together
	GapEars    int64 `json:"gap_ears"`    // listeners who had one
	LostFrames int64 `json:"lost_frames"` // frames of 20 ms that a listener never got
	Skips      int64 `json:"skips"`       // jumps ahead in what one listener got
	Repeats    int64 `json:"repeats"`     // frames that a listener got again or out of order
	Malformed  int64 `json:"malformed"`   // what could not be read
	Repaired   int64 `json:"repaired"`    // frames whose packet was lost and that RED or NACK brought back
	Dropped    int64 `json:"dropped"`     // packets that --loss took away
	Packets    int64 `json:"packets"`     // RTP packets
	Messages   int64 `json:"messages"`    // messages, pages, parts or packets with audio
	Bytes      int64 `json:"bytes"`       // from the network, without TCP's and IP's own

	KernelDrops int64 `json:"kernel_drops"` // packets that the crowd's kernel threw away because the crowd read too late

	SlowGaps  int64 `json:"slow_gaps"`  // the same of slow readers, who bring it on themselves
	SlowSkips int64 `json:"slow_skips"` //

	AudioSeconds int64 `json:"audio_seconds"` // of the sample, decoded and compared
	AudioDiffers int64 `json:"audio_differs"` // of these, that do not sound like the programme
	AudioSilent  int64 `json:"audio_silent"`  // of these, in which nobody spoke
	AudioFaults  int64 `json:"audio_faults"`  // comparisons that failed

	ListenedUS int64 `json:"listened_us"` // listener-seconds, in microseconds

	Sound Histogram `json:"sound"` // from dialling to the first audio there
	Plays Histogram `json:"plays"` // from dialling to the modelled player's sounding
	Join  Histogram `json:"join"`  // from dialling to the stream's being answered (HTTP head, or DTLS done)
	Delay Histogram `json:"delay"` // arrival minus the instant of the oldest frame that came with it
	Late  Histogram `json:"late"`  // arrival minus the instant of the newest frame that came with it
	Pdv   Histogram `json:"pdv"`   // that minus the listener's own least: packet delay variation (RFC 5481, 1.2.2)
	Ear   Histogram `json:"ear"`   // what is heard minus its instant, as the modelled player plays
	Loop  Histogram `json:"loop"`  // how long the crowd's own loop kept an event waiting at most
	Tardy Histogram `json:"tardy"` // dialling minus the time at which it was due

	Unlike Histogram `json:"unlike"` // one minus the correlation of a second heard with the programme, in millionths
}

// Fail counts an attempt that came to nothing.
func (t *Tally) Fail(reason string) {
	if t.Failed == nil {
		t.Failed = make(map[string]int64)
	}
	t.Failed[reason]++
}

// Lose counts a listener that was cut off.
func (t *Tally) Lose(reason string) {
	if t.Lost == nil {
		t.Lost = make(map[string]int64)
	}
	t.Lost[reason]++
}

// Merge adds the other's.
func (t *Tally) Merge(o *Tally) {
	for _, p := range []struct {
		to *int64
		n  int64
	}{
		{&t.Due, o.Due},
		{&t.Dialed, o.Dialed},
		{&t.Joined, o.Joined},
		{&t.Rejoined, o.Rejoined},
		{&t.Left, o.Left},
		{&t.Gaps, o.Gaps},
		{&t.GapUS, o.GapUS},
		{&t.GapEars, o.GapEars},
		{&t.LostFrames, o.LostFrames},
		{&t.Skips, o.Skips},
		{&t.Repeats, o.Repeats},
		{&t.Malformed, o.Malformed},
		{&t.Repaired, o.Repaired},
		{&t.Dropped, o.Dropped},
		{&t.Packets, o.Packets},
		{&t.Messages, o.Messages},
		{&t.Bytes, o.Bytes},
		{&t.SlowGaps, o.SlowGaps},
		{&t.SlowSkips, o.SlowSkips},
		{&t.AudioSeconds, o.AudioSeconds},
		{&t.AudioDiffers, o.AudioDiffers},
		{&t.AudioSilent, o.AudioSilent},
		{&t.AudioFaults, o.AudioFaults},
		{&t.KernelDrops, o.KernelDrops},
		{&t.ListenedUS, o.ListenedUS},
	} {
		*p.to += p.n
	}
	for r, n := range o.Failed {
		if t.Failed == nil {
			t.Failed = make(map[string]int64)
		}
		t.Failed[r] += n
	}
	for r, n := range o.Lost {
		if t.Lost == nil {
			t.Lost = make(map[string]int64)
		}
		t.Lost[r] += n
	}
	mine, theirs := t.histograms(), o.histograms()
	for i := range mine {
		mine[i].Merge(theirs[i])
	}
}

func (t *Tally) histograms() []*Histogram {
	return []*Histogram{&t.Sound, &t.Plays, &t.Join, &t.Delay, &t.Late, &t.Pdv, &t.Ear, &t.Loop, &t.Tardy, &t.Unlike}
}

// Reset empties it and keeps its memory.
func (t *Tally) Reset() {
	hs := t.histograms()
	for _, h := range hs {
		h.Reset()
	}
	failed, lost := t.Failed, t.Lost
	clear(failed)
	clear(lost)
	*t = Tally{
		Failed: failed, Lost: lost, Sound: t.Sound, Plays: t.Plays, Join: t.Join, Delay: t.Delay, Late: t.Late, Pdv: t.Pdv, Ear: t.Ear,
		Loop: t.Loop, Tardy: t.Tardy, Unlike: t.Unlike,
	}
}
