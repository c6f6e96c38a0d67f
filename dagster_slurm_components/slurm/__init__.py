"""Slurm's command line as pure functions: argument lists out, parsed rows in.

Nothing here runs a program or asks the clock. Every query is an argument list that carries its
own format and environment, so the answer does not depend on the user's shell; every parser takes text and
never raises on any text. What the words mean (states, pending reasons, rejections) lives beside the parsers
as tables (CSV).

Written against Slurm 20.11 to 25.11. ``--json`` is not used: 20.11 has none, and its layout changes with each
release.
"""
