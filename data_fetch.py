"""Download MNIST: python data_fetch.py [--data-dir FOLDER], the same as python -m lstm_np.data."""

from __future__ import annotations

import sys

try:
    from lstm_np.data import __main__ as data_command
except ModuleNotFoundError as error:  # this file can be started before anything is installed
    print(f"data_fetch.py: needs {error.name}, which is not installed: pip install -e .", file=sys.stderr)
    raise SystemExit(2) from None


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return data_command.main(argv, called="data_fetch.py")


if __name__ == "__main__":
    sys.exit(main())
