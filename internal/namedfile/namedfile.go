// Package namedfile reads the files that settings name, such as certificates, keys and lists. What stands at the name
// may be anything, at the start and at each reload: it is read only if it is a regular file, of a bounded size, and
// within a bounded time.
package namedfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ErrNotRegular is wrapped by the error for a FIFO, a device, a directory or a socket.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is wrapped by the error for a file with more bytes than the limit.
var ErrTooLarge = errors.New("file is too large")

// patience bounds how long a file system, such as one on the network, may take.
const patience = 10 * time.Second

// Read returns the content of a file with at most limit bytes, and what fstat(2) says of it. Nothing is opened for
// longer than it takes to see that it is no regular file, no open waits for another process, and no terminal becomes
// ours.
func Read(path string, limit int64) ([]byte, fs.FileInfo, error) {
	return within(path, func(f *os.File, info fs.FileInfo) ([]byte, error) {
		if info.Size() > limit {
			return nil, fmt.Errorf("%s is larger than %d bytes: %w", path, limit, ErrTooLarge)
		}
		data, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("%s is larger than %d bytes: %w", path, limit, ErrTooLarge)
		}
		return data, err
	})
}

// Head is Read for files of which only the first limit bytes matter, however large they are.
func Head(path string, limit int64) ([]byte, error) {
	data, _, err := within(path, func(f *os.File, _ fs.FileInfo) ([]byte, error) {
		return io.ReadAll(io.LimitReader(f, limit))
	})
	return data, err
}

// within opens the file and has it read, and gives up when that takes too long: then the reading goes on without us.
func within(path string, read func(*os.File, fs.FileInfo) ([]byte, error)) ([]byte, fs.FileInfo, error) {
	f, info, err := open(path)
	if err != nil {
		return nil, nil, err
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer f.Close()
		data, err := read(f, info)
		done <- result{data, err}
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case r := <-done:
		return r.data, info, r.err
	case <-late.C:
		return nil, nil, fmt.Errorf("read %q: %w", path, os.ErrDeadlineExceeded)
	}
}

// open opens a regular file.
func open(path string) (*os.File, fs.FileInfo, error) {
	// To open a device can have effects of its own, so look first; and look again at what was opened.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is %w", path, ErrNotRegular)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %w", path, ErrNotRegular)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}
