"""The program `dfs-server`, both as installed and as `python -m dfs_server`."""

from collections.abc import Callable

from dfs_server.shared.starting import start


def main() -> None:
    """Load the command and run it."""

    def load() -> Callable[[], None]:
        from dfs_server.cli import main as command

        return command

    start(load)


if __name__ == "__main__":
    main()
