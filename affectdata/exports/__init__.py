"""Exports: every module here whose name has no leading underscore is one format for other programs."""
