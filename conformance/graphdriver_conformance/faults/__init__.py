"""Faults inside a verb: the process of a driver killed, or one of its system calls failed.

A supervised process asks before each system call that may change files or mounts
(`host/seccomp.py`); `supervisor` counts those that touch the driver's home, in one order over all
threads and children, and lets a `Fault` decide about each. `calls` knows the calls, `processes`
starts a driver of any kind in a process of its own, and `sweep` repeats one verb with the fault at
its first call, its second, and so on. Nothing here imports a driver or judges one: the suite does
that with what these modules report.
"""
