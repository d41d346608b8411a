"""Boxes with classes, scores and compact vectors: files of fixed rows, and SQL that says which of them count.

files.py    append-only columns              codes.py    the columns of a space, and what their bytes mean
places.py   where each image's rows lie      reading.py  rows -> `BoxRows`
tables.py   what else is asked of SQL        spaces.py   all of it, in order
"""
