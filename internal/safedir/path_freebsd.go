package safedir

// PathOnly is the flag O_PATH of open(2): a descriptor that stands for the place of a file, whatever that is. FreeBSD
// 13.1 or later has it.
const PathOnly = 0x400000
