package rawio

// sysRecvfrom is the number of recvfrom(2), which package syscall knows only as a part of socketcall(2) here.
const sysRecvfrom = 371
