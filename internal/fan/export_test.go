package fan

import (
	"earshot/internal/radio"
	"earshot/internal/timeline"
)

// ConverterPID is the process that makes a form of a timeline, 0 for none.
func ConverterPID(f *Fan, tl *timeline.Timeline, form radio.Form) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.rooms[tl]; r != nil && r.stations[form] != nil {
		return int(r.stations[form].pid.Load())
	}
	return 0
}
