"""Adapters and composition: outside systems, the two homes, configuration, command line. No HCL here, that is in
terraform/."""
