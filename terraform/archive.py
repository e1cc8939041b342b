"""Puts one archive together for archives.tf: reads what is asked for as JSON, and answers with where it is.

Terraform's own archives take the text of every file into the plan and the state: measured, 35 seconds of a plan and
6 MB. What goes in is decided by archives.tf; nothing is decided here. Needs Python 3.8 and nothing else.
"""

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path


def build(root, to, paths, texts):
    """Writes the files at these paths below `root`, and these texts, as an archive at `to`. Returns a digest of what is
    in it, which does not depend on who packed it, and when."""
    held = {path: Path(root, path).read_bytes() for path in paths}
    held.update((path, text.encode()) for path, text in texts.items())
    target = Path(to)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    # Two plans at a time may both write it.
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(held.items()):
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
            digest.update(f"{path}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    unfinished.replace(target)
    return digest.hexdigest()


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    found = build(asked["root"], asked["to"], json.loads(asked["paths"]), json.loads(asked["texts"]))
    json.dump({"path": asked["to"], "digest": found}, sys.stdout)
