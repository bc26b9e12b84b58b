"""containerd's gRPC interface, as far as the adapter uses it.

The .proto files are this project's own; they hold the services, methods, messages and fields that
are called, with the names and numbers of containerd 1.6 to 2.x. The Python files are compiled from
them: `tox -e protocol`.
"""
