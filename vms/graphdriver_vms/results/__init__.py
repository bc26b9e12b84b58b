"""Evaluation, comparison and reports of a run's rows and cells."""
