"""Files and processes: complete results, and runs that resume.

- ``files``: files and folders written completely or not at all
- ``manifest``: versions and settings beside a result
- ``saved``: the file format of results
- ``image_files``, ``images``, ``masks``: the user's images and masks
- ``text``: text from outside, made printable
- ``digest``: digests of values and of the code
- ``module_digest``: digests of models
- ``checked``: files that hold a digest of their content
- ``checkpoint``: partial results of a long run
- ``tasks``: independent tasks, distributed over processes and resumable
- ``distributed``: ``torch.distributed``, for one process or many
"""
