package workdir

import (
	"crypto/sha256"
	"hash"
	"io"
)

// seal knows what was written: how much, and a sum of it that nobody can meet by chance or design. A worker, or what it
// starts, may write to the file at any time, before and while it is read; a copy out of its reach would cost another
// copy of each message.
type seal struct {
	size int64
	sum  hash.Hash
}

func (s *seal) write(p []byte) {
	if s.sum == nil {
		s.sum = sha256.New()
	}
	s.size += int64(len(p))
	s.sum.Write(p)
}

// reader reads from offset in f what the seal is of. At its end it gives ErrChanged instead of io.EOF if it read
// anything else.
func (s *seal) reader(f io.ReaderAt, offset int64) io.Reader {
	return &sealed{seal: s, from: io.NewSectionReader(f, offset, s.size)}
}

type sealed struct {
	seal *seal
	read seal
	from io.Reader
}

func (r *sealed) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.read.write(p[:n])
	if err == io.EOF && !r.read.equals(r.seal) {
		err = ErrChanged
	}
	return n, err
}

func (s *seal) equals(other *seal) bool {
	s.write(nil)
	other.write(nil)
	return s.size == other.size && string(s.sum.Sum(nil)) == string(other.sum.Sum(nil))
}
