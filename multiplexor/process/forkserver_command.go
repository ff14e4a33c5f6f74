package process

import (
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"

	"postern/internal/namedfile"
)

//go:embed forkserver/mimedefang-forkserver.pl
var perlLoader []byte

// Descriptors of a fork server besides the standard ones. The third is kept free
// for the status pipe of workers: a filter may bind a handle to its number.
const (
	ControlFD = 4
	loaderFD  = 5
)

// ForkSocketVariable tells a program the number of its control socket.
const ForkSocketVariable = "POSTERN_FORK_SOCKET"

// forkServerCommand returns the command that makes a fork server of the program. A
// Perl program is helped by our loader, which perl reads from loaderFD: embedded
// here it has the version of the multiplexor that runs, whatever is installed by
// then.
func (pr *Program) forkServerCommand() (path string, argv []string, perl bool) {
	args := append([]string{pr.Path}, pr.args("-embserver")...)
	interpreter, err := scriptInterpreter(pr.Path)
	if err != nil || !isPerl(interpreter) {
		// A program that cannot be read may still be executed.
		args[0] = filepath.Base(pr.Path)
		return pr.Path, args, false
	}
	argv = append(interpreter, fmt.Sprintf(loadLoader, loaderFD))
	return interpreter[0], append(argv, args...), true
}

// isPerl reports whether a script is one for perl, also by way of env(1).
func isPerl(interpreter []string) bool {
	for i, word := range interpreter {
		if i > 0 && strings.HasPrefix(word, "-") {
			continue
		}
		base := filepath.Base(word)
		if i > 0 || base != "env" {
			return strings.HasPrefix(base, "perl")
		}
	}
	return false
}

// loadLoader makes perl read the loader. The match takes the taint off it: with -T,
// perl runs nothing that was read.
const loadLoader = "-MPOSIX ();BEGIN{open my$f,'<&=',%d or die$!;local$/;<$f>=~/(.*)/s;eval$1;die$@ if$@}"

// scriptInterpreter returns the words behind #! at the beginning of a file.
func scriptInterpreter(path string) ([]string, error) {
	head, err := namedfile.Head(path, 512)
	if err != nil {
		return nil, err
	}
	line, _, whole := strings.Cut(string(head), "\n")
	text, ok := strings.CutPrefix(line, "#!")
	if words := strings.Fields(text); ok && whole && len(words) > 0 {
		return words, nil
	}
	return nil, fmt.Errorf("%s is no script", path)
}
