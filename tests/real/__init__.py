"""Drivers that other people wrote, judged: run, compared with what is known of them, published.

    python -m tests.real                            all of them; writes docs/real-drivers.md
    python -m tests.real --check NAME ...           those, compared with tests/real/expectations

Not a test of pytest's: a run takes minutes, and starts daemons.
"""
