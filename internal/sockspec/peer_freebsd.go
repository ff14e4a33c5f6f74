package sockspec

import "golang.org/x/sys/unix"

// unix(4), LOCAL_PEERCRED
func credentials(fd int) (Credentials, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{UID: cred.Uid}, nil
}
