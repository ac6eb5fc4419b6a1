//go:build !linux

package crowd

import (
	"context"
	"errors"
)

// work needs epoll, and packets' own addresses and times of arrival.
func work(context.Context, job, func(Row)) error {
	return errors.New("a crowd listens on Linux only")
}
