"""The command line: ``stoker COMMAND ...``; see ``stoker.cli.main``."""

__all__: list[str] = []
