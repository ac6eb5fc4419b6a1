package radio

import (
	"fmt"
	"os"
)

// offer has the kernel take this child first when memory is short: it is followed by another, while the node carries everybody
// (proc_pid_oom_score_adj(5)). To raise the figure needs no right; where it cannot be raised all else works.
func offer(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
}
