"""``verify.py``: the checker of bundles that needs Python's standard library and nothing else, in parts.

A bundle carries the parts in one file, joined by :func:`..program.program`; so no two of them may define one name, each
begins with its imports, a line ``# -- `` follows, and what stands below goes into the file.  They import each other and
the standard library only, they run on Python 3.9, and they share nothing with the rest of the library: what checks
a bundle must not be what wrote it.
"""
