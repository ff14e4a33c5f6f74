package sockspec

import "syscall"

// unix(7), SO_PEERCRED
func credentials(fd int) (Credentials, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{UID: cred.Uid, PID: cred.Pid}, nil
}
