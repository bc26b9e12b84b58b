"""Serve a driver as a Docker graphdriver plugin: JSON over HTTP on a unix socket.

The protocol is that of Docker 1.12 to 27 (daemon/graphdriver/proxy.go, docs/extend/
plugins_graphdriver.md); Docker 28 removed it. `server` implements HTTP, `calls` the verbs, `python
-m graphdriver.plugin` is the program.
"""
