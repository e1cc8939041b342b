"""The HTTP API of data syncs: files in, files out, and how their launches stand."""
