"""Errors of the store.

StoreError
├── WorkspaceError        the folder is no workspace, or exists already      (exit code 2)
│   └── SchemaError       its schema is older or newer than this code        (exit code 2)
├── NotFoundError         a name or id that the workspace does not hold      (exit code 2)
├── ConflictError         what is changed was changed meanwhile              (exit code 1)
├── AccessError           a stage asks for what it may not see               (exit code 2)
├── ImageError            bytes that are no usable image                     (exit code 2)
│   └── RemoteError       an object of a bucket that cannot be read          (exit code 2)
└── CorruptionError       stored bytes do not match their hash or length     (exit code 1)
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors that the store raises on purpose; the message is one clear line."""

    exit_code = 1


class WorkspaceError(StoreError):
    """The folder is no workspace, or a new workspace would overwrite one."""

    exit_code = 2


class SchemaError(WorkspaceError):
    """The workspace's schema is not the one that this version of curator reads."""


class NotFoundError(StoreError):
    """A name or an id that the workspace does not hold."""

    exit_code = 2


class ConflictError(StoreError):
    """What is to be changed is no longer what it was when it was read."""


class AccessError(StoreError):
    """A stage asked for pixels or annotations that it must not see (holdout, unselected pool)."""

    exit_code = 2


class ImageError(StoreError):
    """The bytes cannot be decoded as an image, or break the size limits."""

    exit_code = 2


class RemoteError(ImageError):
    """An object or folder of a bucket is missing, may not be read, or did not come whole."""


class CorruptionError(StoreError):
    """Stored bytes do not match their recorded hash or length."""
