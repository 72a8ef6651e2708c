"""Files below one root that may be a folder or any URI that pyarrow knows (s3://, gs://, ...)."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raywf.core.ids import stable_id
from raywf.core.objects import create_object

if TYPE_CHECKING:
    from pyarrow import fs as arrow_fs


@dataclass(frozen=True, slots=True)
class Store:
    """Reads, writes and lists files by a path relative to `root`; every write is whole or absent."""

    root: str

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine (or a mount)."""
        return "://" not in self.root or self.root.startswith("file://")

    @property
    def node_folder(self) -> Path:
        """Where a node keeps its own files: the root itself, or for an object store a folder of its disk.

        That lies in the user's cache folder, below ``XDG_CACHE_HOME`` or ``~/.cache``.
        """
        if self.is_local:
            return Path(self._folder)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(cache) / "raywf" / stable_id(self.root)

    def uri(self, path: str) -> str:
        """Return the address of a path below the root."""
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def filesystem(self) -> tuple[arrow_fs.FileSystem, str]:
        """Return the pyarrow file system and the root's path in it."""
        from pyarrow import fs

        if "://" not in self.root:
            return fs.LocalFileSystem(), self._folder
        filesystem, base = fs.FileSystem.from_uri(self.root)
        return filesystem, base

    @property
    def _folder(self) -> str:
        """The root's path on this machine, where it is local."""
        return self.filesystem()[1] if "://" in self.root else str(Path(self.root).absolute())

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: if it is not there.

        """
        filesystem, base = self.filesystem()
        with filesystem.open_input_stream(f"{base}/{path}") as stream:
            return bytes(stream.read())

    def write(self, path: str, data: bytes) -> None:
        """Replace a file, atomically."""
        if self.is_local:
            target = f"{self._folder}/{path}"
            os.replace(_local_draft(target, data), target)
            return
        filesystem, base = self.filesystem()
        with filesystem.open_output_stream(f"{base}/{path}") as stream:
            stream.write(data)

    def create(self, path: str, data: bytes, *, synced: bool = True) -> bool:
        """Write a file unless it exists; return whether this call wrote it.

        This holds among processes, and on an object store among machines. What is not `synced` outlives the
        process at once, and a power loss only later: it may be cut off then.

        Raises:
            SettingsError: if the root's kind of object store needs a library that is not installed.
            OSError: if the store refuses.
        """
        if not self.is_local:
            return create_object(self.uri(path), data)
        target = f"{self._folder}/{path}"
        draft = _local_draft(target, data, synced=synced)
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(draft)
        return True

    def drop(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        filesystem, base = self.filesystem()
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{path}")

    def remove(self, path: str) -> None:
        """Remove a folder with all that is in it; one that is not there is no error."""
        filesystem, base = self.filesystem()
        with suppress(FileNotFoundError):
            filesystem.delete_dir(f"{base}/{path}")

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        from pyarrow import fs

        filesystem, base = self.filesystem()
        return bool(filesystem.get_file_info(f"{base}/{path}").type != fs.FileType.NotFound)

    def modified_s(self, path: str) -> float | None:
        """Return when a file was last written, in seconds since 1970, or None where there is none."""
        filesystem, base = self.filesystem()
        written: int | None = filesystem.get_file_info(f"{base}/{path}").mtime_ns
        return None if written is None else written / 1e9

    def walk(self, path: str) -> tuple[tuple[str, int], ...]:
        """Return all files below a folder, as paths relative to it, with their sizes in bytes."""
        from pyarrow.fs import FileType

        folder = f"{self.filesystem()[1]}/{path}"
        files = [i for i in self._infos(path, recursive=True) if i.type == FileType.File]
        return tuple(sorted((i.path.removeprefix(folder).lstrip("/"), i.size) for i in files))

    def list(self, path: str) -> tuple[str, ...]:
        """Return the sorted names directly below a folder; empty where it does not exist."""
        return tuple(sorted(info.base_name for info in self._infos(path, recursive=False)))

    def _infos(self, path: str, recursive: bool) -> tuple[arrow_fs.FileInfo, ...]:
        """Return what lies below a folder, but for drafts."""
        from pyarrow import fs

        filesystem, base = self.filesystem()
        selector = fs.FileSelector(f"{base}/{path}", allow_not_found=True, recursive=recursive)
        try:
            infos = filesystem.get_file_info(selector)
        except FileNotFoundError:  # a folder was made between pyarrow's listing and its second look
            infos = filesystem.get_file_info(selector)
        return tuple(info for info in infos if ".draft-" not in info.base_name)


def absolute(path: str) -> str:
    """Return a path that means the same in another folder; a URI stays as it is."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _local_draft(target: str, data: bytes, *, synced: bool = True) -> str:
    folder, _, name = target.rpartition("/")
    draft = f"{folder}/.draft-{uuid.uuid4().hex}-{name}"  # a name that readers of folders pass over
    try:
        file = open(draft, "wb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = open(draft, "wb")  # noqa: SIM115 - closed below
    with file:
        file.write(data)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    return draft
