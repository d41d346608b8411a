"""curator: mend object detectors through their data."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("curator")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
