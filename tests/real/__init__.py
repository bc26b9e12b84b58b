"""Third-party drivers: run, compared with their known violations, published.

    python -m tests.real                            all drivers; writes docs/real-drivers.md
    python -m tests.real --check NAME ...           the named ones; fails on unexpected outcomes

Not run by pytest: a run takes minutes, and starts daemons.
"""
