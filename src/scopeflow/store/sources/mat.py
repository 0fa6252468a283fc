"""Recordings in MATLAB files before v7.3."""


def open_mat(path, **kw):
    raise NotImplementedError
