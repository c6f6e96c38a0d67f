"""Slurm's command line as pure functions: argument lists out, parsed rows in; parsers never raise on any text.

What the words mean lives beside the parsers as tables (CSV). Written against Slurm 20.11 to 25.11. ``--json`` is not
used: 20.11 has none, and its layout changes with each release.
"""
