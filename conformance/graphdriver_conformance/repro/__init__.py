"""Violations as scripts: the test's calls of the driver, replayed without pytest.

`recorder` records the verbs of a test's driver, their results, and the edits in the views between
them (`edits`). `script` writes them as a program. `observe` and `replay` are pasted into every
script, which therefore needs only the driver: they use the standard library only.

A script reproduces a violation if the driver returns all results of the test again. A test is a
function of these results, so a driver that passes it must return another result for some call. If
this does not reproduce the violation, because a test may do more than call verbs, the script calls
the test (`rerun`).
"""
