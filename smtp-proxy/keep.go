package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"postern/internal/config"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
)

// keptOutcomes are what became of messages that were to be kept, as a label of the metrics.
var keptOutcomes = []string{"kept", "dropped", "failed"}

// keeps reports whether messages are kept.
func (s *settings) keeps() bool {
	return bool(s.KeepFailed) || s.KeepSlow > 0 || s.KeepSample > 0
}

// checkKept looks at where messages are kept: not among those that are in work.
func (s *settings) checkKept() error {
	switch {
	case s.KeepDir == "":
	case !filepath.IsAbs(s.KeepDir):
		return &config.Error{Key: "keep-dir", Err: fmt.Errorf("%q is no absolute path", s.KeepDir)}
	case filepath.Clean(s.KeepDir) == filepath.Clean(s.Spool):
		return &config.Error{Key: "keep-dir", Err: errors.New("is the spool; name another directory, which may be in it")}
	case workdir.Sweeps(s.Spool, s.KeepDir):
		return &config.Error{Key: "keep-dir", Err: errors.New("has the name of a working directory of the spool, which would be removed")}
	}
	if box, ok := s.heldMaildir(); ok && s.KeepDir != "" && within(box, s.KeepDir) {
		return &config.Error{Key: "keep-dir", Err: errors.New("is in the Maildir of what is held")}
	}
	return nil
}

// within reports whether a path is that of a directory, or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// unkept says why the user who serves could keep nothing, if that is so.
func (s *settings) unkept() []string {
	if s.Multiplexor == "" || !s.keeps() {
		return nil
	}
	dir := newKept(s, nil).Dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Dir(dir) // it is made when there is something to be kept
	}
	err := s.mayMake(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // that was said of the directories
		return nil
	}
	return []string{fmt.Sprintf("keep-dir: no message can be kept: %s: %v", dir, err)}
}

// newKept returns the directory where messages are kept.
func newKept(s *settings, log *slog.Logger) *workdir.Kept {
	dir := s.KeepDir
	if dir == "" {
		dir = filepath.Join(s.Spool, "kept")
	}
	k := workdir.NewKept(dir, log)
	k.Max, k.MaxBytes = s.KeepMax, int64(s.KeepMaxSize)
	k.Trusted = newSpool(s).Workers()
	return k
}

// byChance reports whether a message is one of a share of all.
func byChance(share config.Share) bool { return share > 0 && rand.Float64() < float64(share) }

// scanned has a copy of a message that was scanned kept, or shown to the shadow filter, if the settings say so. Nothing of
// that holds up the message.
func (s *session) scanned(tx *transaction, r *filter.Result) {
	if !s.srv.filter.Stages.Scan {
		return
	}
	if why := s.conf.keepReason(r); why != "" {
		s.keep(tx, why)
	}
	if s.srv.shadow == nil || r.Err != nil || !byChance(s.conf.ShadowShare) {
		return
	}
	if files := s.filesOf(tx, "message is not shown to the shadow filter"); files != nil {
		s.srv.shadow.offer(tx.qid, files)
	}
}

// keepReason says why a message is kept; "" if it is not.
func (c *live) keepReason(r *filter.Result) string {
	switch {
	case bool(c.KeepFailed) && r.Err != nil:
		return "failed: " + r.Err.Error()
	case c.KeepSlow > 0 && r.Took >= c.KeepSlow:
		return "slow: " + r.Took.Round(time.Millisecond).String()
	case byChance(c.KeepSample):
		return "sample"
	}
	return ""
}

// keep has a message kept.
func (s *session) keep(tx *transaction, why string) {
	files := s.filesOf(tx, "message is not kept")
	if files == nil {
		return
	}
	if err := s.srv.kept.Put(files, tx.qid, why); err != nil {
		s.note(slog.LevelWarn, "message is not kept", "error", err)
	}
}

// filesOf returns the files of a message, or logs why there are none.
func (s *session) filesOf(tx *transaction, lacking string) *workdir.Snapshot {
	files, err := tx.filtered.Snapshot()
	if err != nil {
		s.note(slog.LevelWarn, lacking, "error", err)
		return nil
	}
	return files
}
