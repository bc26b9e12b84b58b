"""Violations as scripts: what a test did with the driver, replayed without pytest.

`recorder` stands between a test and its driver and writes down the verbs, what each answered, and
what was edited in the views between them (`edits`). `script` writes that as a program. `seen` and
`replay` are pasted into every script, which therefore needs nothing but the driver: they use the
standard library only.

A script reproduces when the driver gives every answer again that the test saw. A test is a function
of those answers, so a driver that passes it must answer differently somewhere. Where that does not
show the violation, since a test may do more than call verbs, the script calls the test (`rerun`).
"""
