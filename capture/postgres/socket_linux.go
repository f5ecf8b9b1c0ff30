package postgres

import (
	"os"
	"syscall"
	"unsafe"
)

// available returns how many bytes can be read from a socket now.
func available(fd uintptr) int {
	var n int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return lowWater // let a read find out
	}
	return int(n)
}

// setLowWater sets how many bytes must have arrived before a waiting reader is woken.
func setLowWater(fd uintptr, n int) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n))
}
