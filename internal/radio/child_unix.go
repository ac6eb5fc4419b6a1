//go:build unix

package radio

import (
	"os/exec"
	"syscall"
)

// apart keeps a child out of the terminal's way: an interrupt is for this process, which ends its children itself.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
