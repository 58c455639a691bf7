"""The command line: ``stoker COMMAND ...``; see ``stoker.cli.main``."""
