"""The command line: ``stoker train``, ``resume``, ``eval``, ``ls``, ``show``, ``plot``."""

__all__: list[str] = []
