// Package workdir makes and reads the working directory that a mail front end shares with filter workers for the
// length of one message: COMMANDS, HEADERS and INPUTMSG for the worker, RESULTS and NEWBODY from it.
//
// The format is that of MIMEDefang (mimedefang-protocol(7)), described in postern-filter(7). Workers, and the virus
// scanners and unpackers they start, write in these directories, so whatever is found there is taken for hostile:
// no link is followed, only regular files of limited size are read, and removal never leaves the directory.
package workdir

import (
	"path/filepath"
	"strings"
)

// Names of the files in a working directory.
const (
	fileCommands = "COMMANDS"
	fileHeaders  = "HEADERS"
	fileInput    = "INPUTMSG"
	fileResults  = "RESULTS"
	fileNewBody  = "NEWBODY"
)

// Names in the spool directory.
const (
	dirPrefix   = "mdefang-" // a working directory in use
	asidePrefix = "aside-"   // one whose worker may still be busy in it; or which could not be removed; removed by Tend
	fileKeepAll = "DO-NOT-DELETE-WORK-DIRS"
)

// Sweeps reports whether a path is that of a working directory of a spool by its name, or below it: Tend may remove it.
func Sweeps(spool, path string) bool {
	rel, err := filepath.Rel(spool, path)
	return err == nil && (strings.HasPrefix(rel, dirPrefix) || strings.HasPrefix(rel, asidePrefix))
}

// headersPiece is how much of HEADERS is gathered before it is written.
const headersPiece = 16 << 10

// white is the white space of a header.
const white = " \t"

// Limits. Those of the original are the same where it has any.
const (
	maxQueueID     = 31    // bytes of a queue id; the multiplexor keeps no more
	maxResults     = 65535 // bytes of RESULTS
	maxResultsLine = 16382 // bytes of a line of RESULTS without its LF
	maxFieldName   = 256   // bytes of a header field name
	maxHeaderLine  = 998   // bytes of a line of the header without its LF
	maxIndent      = 512   // bytes of white space that a line of the header begins with, where it is too long
	maxMIMEField   = 65536 // bytes of a Content- field; Postfix cuts any field off at 102400
	maxCommandText = 8192  // bytes kept of a Subject or Message-ID before encoding
)
