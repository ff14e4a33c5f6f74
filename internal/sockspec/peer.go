package sockspec

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
)

// Credentials are those of the process that has connected, as the kernel knows them.
type Credentials struct {
	UID uint32
	PID int32 // 0 where the system does not tell
}

// Peer returns who is on the other side of a UNIX socket.
func Peer(conn net.Conn) (cred Credentials, err error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return cred, errors.New("no UNIX socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return cred, err
	}
	controlled := raw.Control(func(fd uintptr) { cred, err = credentials(int(fd)) })
	return cred, errors.Join(controlled, err)
}

// Users returns the ids of the users in a setting. A user is a name or a number;
// one that does not exist is an error.
func Users(setting string, names []string) (ids []uint32, err error) {
	for _, name := range names {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s %q: no such user", setting, name)
		}
		ids = append(ids, uint32(uid))
	}
	return ids, nil
}
