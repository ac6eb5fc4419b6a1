package peer

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// Logs turns what Pion says into debug records. It speaks of single packets, among them those that strangers throw at the
// port, so none of it may reach the log of a healthy server; what an operator must know is counted where it happens.
func Logs(log *slog.Logger) logging.LoggerFactory { return factory{log} }

type factory struct{ log *slog.Logger }

func (f factory) NewLogger(scope string) logging.LeveledLogger {
	return leveled{f.log.With("pion", scope)}
}

type leveled struct{ log *slog.Logger }

func (leveled) Trace(string)                        {}
func (leveled) Tracef(string, ...any)               {}
func (leveled) Debug(string)                        {}
func (leveled) Debugf(string, ...any)               {}
func (l leveled) Info(msg string)                   { l.say(msg) }
func (l leveled) Infof(format string, args ...any)  { l.sayf(format, args) }
func (l leveled) Warn(msg string)                   { l.say(msg) }
func (l leveled) Warnf(format string, args ...any)  { l.sayf(format, args) }
func (l leveled) Error(msg string)                  { l.say(msg) }
func (l leveled) Errorf(format string, args ...any) { l.sayf(format, args) }

func (l leveled) say(msg string) { l.log.Debug(msg) }

func (l leveled) sayf(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}
