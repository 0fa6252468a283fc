"""Recordings in Nikon ND2 files."""


def open_nd2(path, **kw):
    raise NotImplementedError
