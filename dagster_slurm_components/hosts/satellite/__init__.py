"""The satellite: runs on a host and does everything there. Standard library only, Python 3.6 or newer.

Over a connection its modules are sent as one text (``hosts/program.py``), answer requests on standard input and output,
and end when their input closes. For the local host the same functions run in-process (``operations.handle``);
therefore only ``operations.main`` touches the process's own environment, working folder and standard streams.

Each imports from those above it alone:

* ``protocol``: frames, and what requests and replies are made of
* ``calls``: what goes in and comes out
* ``files``: whole or not at all
* ``commands``: run with a time limit
* ``processes``: whether they live
* ``locks``: for all processes of all machines
* ``budget``: how often Slurm may be asked, by all together
* ``queries``: commands on request, and answers of Slurm that all share
* ``leases``: who follows a job, and whether its results were handed over
* ``found``: what a pattern stands for
* ``transfer``: files on request
* ``uploads``: files that come in pieces
* ``ledger``, ``places``, ``submission``: one job, however often it is sent
* ``streams``: a program that somebody talks to
* ``relay``: a port of a job's node; no part of the satellite, but sent beside it
* ``operations``: what can be asked, and the serving of it

Paths and arguments come as JSON text and are used as bytes (UTF-8, undecodable bytes as surrogates): the file
system encoding of an old Python in the C locale must not decide what a file is called.

Times are seconds; points in time are epochs of this machine's clock. Files are made 0600 and folders 0700.
"""
