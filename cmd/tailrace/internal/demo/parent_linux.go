package demo

import "syscall"

// dieWithParent makes the kernel end a program when this process ends, however it does.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
