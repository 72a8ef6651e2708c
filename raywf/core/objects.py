"""Objects that are written only if they are not there: of several writers, on whatever machines, one wins."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit

from raywf.core.errors import SettingsError

_TAKEN = frozenset({"PreconditionFailed", "412"})
_AGAIN = frozenset({"ConditionalRequestConflict", "409"})  # two at the same moment: who comes later is told
_TRIES = 5


def create_object(uri: str, data: bytes) -> bool:
    """Write an object unless it exists; return whether this call wrote it.

    S3's own conditional write is used (``If-None-Match``), with boto3, which takes credentials and
    ``AWS_ENDPOINT_URL`` from where pyarrow does; of other stores that of their fsspec library.

    Raises:
        SettingsError: if the library is not installed.
        OSError: if the store refuses.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        return _create_on_s3(parts.netloc, parts.path.lstrip("/"), data)
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(uri)
        filesystem.pipe_file(path, data, mode="create")
    except (ImportError, ValueError) as err:
        raise SettingsError(f"stores.root: {parts.scheme}:// needs its fsspec library: {err}") from err
    except FileExistsError:
        return False
    return True


def _create_on_s3(bucket: str, key: str, data: bytes) -> bool:
    client = _s3_client()
    from botocore.exceptions import BotoCoreError, ClientError  # there, where boto3 is

    for left in reversed(range(_TRIES)):
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as err:
            code = str(err.response.get("Error", {}).get("Code", ""))
            if code in _TAKEN:
                return False
            if code not in _AGAIN or not left:
                raise OSError(f"s3://{bucket}/{key} cannot be written: {err}") from err
        except BotoCoreError as err:
            raise OSError(f"s3://{bucket}/{key} cannot be written: {err}") from err
        else:
            return True
    raise AssertionError


@functools.cache
def _s3_client() -> Any:
    try:
        import boto3
    except ImportError as err:
        raise SettingsError("stores.root on S3 needs boto3: pip install 'raywf[s3]'") from err
    return boto3.client("s3")
