package web

import (
	"bufio"
	"net/http"
	"strconv"

	"earshot/internal/event"
)

const (
	backupPath  = "/api/v1/backup"
	backupPiece = 64 << 10 // bytes that are sent at once
)

// backup streams a backup of the whole server. What is in it makes whoever has it the operator, so only the operator's key itself opens
// it: a session will not do, as somebody may have left a browser open. One at a time, so that no script can make a server do nothing else.
func (s *web) backup(w http.ResponseWriter, r *http.Request) {
	c, err := s.identify(r)
	switch {
	case err != nil:
	case r.Header.Get("Authorization") == "":
		err = newProblem(event.CodeUnauthorized, "A backup is had with the operator's key as a bearer token: earshot backup does that.").because(reasonCredential)
	case !c.operator:
		err = event.Forbidden("Only the operator of this server can do this.")
	case s.cfg.Backup == nil:
		err = event.Unavailable("This server makes no backups.", nil)
	}
	sessions := false
	if text := r.URL.Query().Get("sessions"); err == nil && text != "" {
		if sessions, err = strconv.ParseBool(text); err != nil {
			err = event.Invalid("sessions", "Say sessions=true to have browsers' sessions in it.")
		}
	}
	if err == nil && !s.backing.TryLock() {
		err = event.Busy("A backup is being made already. Wait until it is done.")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer s.backing.Unlock()
	h := w.Header()
	h.Set("Content-Type", "application/x-tar")
	h.Set("Content-Disposition", `attachment; filename="earshot-`+s.now().UTC().Format("20060102-150405")+`.tar"`)
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	out := &patient{w: w, ctl: http.NewResponseController(w)}
	pieces := bufio.NewWriterSize(out, backupPiece)
	err = s.cfg.Backup(r.Context(), sessions, pieces)
	if err == nil {
		err = pieces.Flush()
	}
	if err == nil {
		return
	}
	if r.Context().Err() == nil && out.err == nil {
		s.log.Error("backup broken off", "err", err)
	}
	if !out.wrote {
		s.fail(w, r, err)
		return
	}
	panic(http.ErrAbortHandler) // a part is no backup
}
