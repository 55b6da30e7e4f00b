"""Files and processes: results that are whole or absent, and runs that resume.

- ``files``: files and folders that are written as one
- ``manifest``: versions and settings beside a result
- ``saved``: the file format of results
- ``text``: names from outside, made fit to show
- ``checkpoint``: partial results of a long run
- ``tasks``: independent tasks, distributed over processes and resumable
- ``distributed``: the few calls of ``torch.distributed`` that are needed
"""
