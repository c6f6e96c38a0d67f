"""The builder: makes, checks, lists and removes environments on a host. Standard library only, Python 3.6 or newer.

Its modules are sent along with each order and live there for one action, in memory (``hosts/program.py``). It is told
what to run as argument lists; nothing is a shell text. Of the satellite it takes the locks.

Folders below the profile's workdir::

    store/ab/abc...          artifacts, named after the SHA-256 of their content
    store/incoming/abc.../N  pieces of an artifact that is on its way
    store/cache/             what the packers keep between builds
    envs/KEY/                an environment, there with its manifest ``.ready`` or not there at all
    envs/.building-KEY-*/    one that is being made, or whose maker was killed
"""
