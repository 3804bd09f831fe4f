"""The command line: each module without a leading underscore is one command.

In: arguments. Out: text or one JSON document on stdout, an exit code.

Read `_main` (exceptions become exit codes) and `_output` (options and output of all commands) first.
"""
