"""Tidings inside other frameworks, one file each."""
