// Package trace reads what strace wrote, for tests that prove in which order a process asked the system for things. It stands
// apart from package rig so that a test of the disk need not build WebRTC.
package trace

import "strings"

// After finds the first line that has the parts of pattern (split at *) in order and is a call that succeeded, and gives what
// follows its end. A call that strace shows in two pieces ends with the second.
func After(trace, pattern string) (rest string, ok bool) {
	lines := strings.SplitAfter(trace, "\n")
	for i, line := range lines {
		at, found := line, true
		for part := range strings.SplitSeq(pattern, "*") {
			if _, at, found = strings.Cut(at, part); !found {
				break
			}
		}
		if !found {
			continue
		}
		pid, _, _ := strings.Cut(line, " ")
		end := i
		if strings.Contains(line, "<unfinished") {
			for end++; end < len(lines) && (!strings.HasPrefix(lines[end], pid+" ") || !strings.Contains(lines[end], "resumed>")); end++ {
			}
		}
		if end < len(lines) && !strings.Contains(lines[end], "= -1 ") {
			return strings.Join(lines[end+1:], ""), true
		}
	}
	return "", false
}
