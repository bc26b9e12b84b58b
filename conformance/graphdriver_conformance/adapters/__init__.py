"""Drivers that are not Python objects, made to look like one: a module for each way there."""
