"""Entry point of the `runstream` command; it lives in the light client so that the command always exists."""

import sys


def main() -> None:
    """Run the command line; without the server extra, say what to install and exit with 1."""
    try:
        from runstream_server.cli.main import main as server_main
    except ModuleNotFoundError as error:
        sys.exit(f"runstream: {error.name} is missing; pip install 'runstream[server]'")
    server_main()


if __name__ == "__main__":
    main()
