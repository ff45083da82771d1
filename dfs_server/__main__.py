"""`python -m dfs_server` is `dfs-server`."""

from dfs_server.cli import main

if __name__ == "__main__":
    main()
