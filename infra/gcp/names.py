"""What things are called on Google Cloud. Terraform makes them under the same names."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~@+:-]{0,199}")


def document_id(*names: str) -> str:
    """The id of the document of something with this name. Ids that begin alike would end up in one place of the index,
    so each begins with a hash; a name that is no good as an id is left out of it."""
    text = "\x1f".join(names)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    readable = "~".join(names)
    return f"{digest[:12]}-{readable}" if _PLAIN.fullmatch(readable) else digest


def key_id(key: str) -> str:
    """The id of a key, of whatever text and length."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def both(integration: str, stream: str) -> str:
    """A stream's full name, for the fields that are asked for."""
    return f"{integration}/{stream}"


def topic_path(project: str, topic: str) -> str:
    return f"projects/{project}/topics/{topic}"


def subscription_path(project: str, topic: str) -> str:
    """A topic's only subscription has its name."""
    return f"projects/{project}/subscriptions/{topic}"


def job_path(project: str, location: str, integration: str, stream: str) -> str:
    """The Cloud Scheduler job of a stream. Names of integrations and streams have no hyphen."""
    return f"projects/{project}/locations/{location}/jobs/{integration}-{stream}"


def bucket_name(project: str) -> str:
    """The bucket of the archive."""
    return f"{project}-waybill"
