//go:build !linux

package whep

// descriptors is how many descriptors a process may open at the least.
func descriptors() int { return 1024 }
