package safedir

import "golang.org/x/sys/unix"

// PathOnly is the flag O_PATH of open(2): a descriptor that stands for the place of a file, whatever that is.
const PathOnly = unix.O_PATH
