"""Files of this machine as a source: one file, a folder, or a pattern; CSV or JSON lines, compressed or not.

Options of a stream: `path`; `format` (csv, jsonl) if the name does not tell; `delimiter` if the header does not;
`key`, the columns by which a row is known, or none. Each row carries its identity in the column `_identity`, which
`shared.tabular.identify` reads.

A file belongs to the window in which it came here: was written, moved or copied. Which of two rows with one key is the
newer one is told by when their files were written last.
"""

from __future__ import annotations

from infra.systems import Connection
from infra.systems.files.folder import Folder
from infra.systems.files.options import formats_of, path_of
from infra.systems.files.reading import Tables
from shared.errors import ConfigError

__all__ = ["Tables", "open_source"]


def open_source(connection: Connection, read: str) -> Tables:
    """What is read is said by the options, and `read` says nothing. Raises ConfigError for options that cannot be."""
    if connection.page_size < 1:
        raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
    store = Folder(path_of(connection.options), connection.clock)
    return Tables("files", store, formats_of(connection.options), connection.page_size, connection.clock)
