"""The command line: every command of ``orin-run``, and the converter's."""
