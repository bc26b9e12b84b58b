"""Rows and cells of a run: judged, laid side by side, written."""
