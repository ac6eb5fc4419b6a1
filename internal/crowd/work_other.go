//go:build !linux

package crowd

import (
	"context"
	"errors"
	"time"
)

// work needs epoll, and packets' own addresses and times of arrival.
func work(context.Context, job, func() (time.Time, error), func(Row)) error {
	return errors.New("a crowd listens on Linux only")
}

func descriptorLimit() int { return 1 << 30 }
