"""Folders of per-image results, network files, identities by content, and jobs that fill the folders."""
