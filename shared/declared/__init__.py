"""What people declare instead of programming it: fields and conditions of an integration.yaml, and the metadata of a
Qeasy scheme. Pure: files are read elsewhere (`infra/accepted.py`)."""
