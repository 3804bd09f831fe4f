"""The command line: one command per file, found by file name; `_main` turns exceptions into exit codes."""
