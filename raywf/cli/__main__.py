"""``python -m raywf.cli`` is the `raywf` command."""

from raywf.cli.main import main

if __name__ == "__main__":
    main()
