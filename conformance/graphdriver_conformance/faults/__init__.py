"""Faults inside a verb: the process of a driver is killed, or one of its system calls fails.

A supervised process is stopped before each system call that may change files or mounts
(`host/seccomp.py`); `supervisor` counts those that affect the driver's home, in one order over all
threads and children, and lets a `Fault` decide about each. `calls` describes the system calls,
`processes` starts a driver of any kind in a separate process, and `sweep` repeats one verb with the
fault at its first call, its second, and so on. These modules neither import nor judge drivers: the
suite does that with their reports.
"""
