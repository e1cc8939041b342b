"""Runnable fakes of the outside systems, speaking real HTTP on loopback: `with Sandbox() as sandbox`."""

from tests.sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]
