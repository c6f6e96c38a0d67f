"""What keeps inputs on a host: makes, fetches, lists and prunes them. Standard library only, Python 3.6 or newer.

Its modules are sent along with each order and live there for one action, in memory (``hosts/program.py``); on Dagster's
own machine the same functions are called. Of the builder and the satellite it takes hashes, logins and locks.

Folders below the profile's workdir, all 0700::

    data/objects/ab/SHA256    the content of a file, 0400; with an ``x`` at its end of an executable one, 0500
    data/trees/KEY/NAME       an input as payloads see it: a file, or a folder (0500) of further links to objects
    data/trees/KEY/.ready     what it is; renewed, as a file, by whoever asks for it
    data/trees/KEY/.used      renewed by each job that begins with it
    data/trees/.making-KEY    one that is being made, or whose maker was killed
    data/urls/ID.json         what a URL, or an archive, gave
    data/incoming/            what is on its way
"""
