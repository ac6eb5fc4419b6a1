//go:build !linux

package radio

func offer(int) {}
