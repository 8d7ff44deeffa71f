"""Download MNIST: python data_fetch.py [--data-dir FOLDER].  The work is done in lstm_np/data/download.py."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from typing import NoReturn

try:
    from lstm_np.data.download import MIRRORS, DownloadError, fetch
    from lstm_np.data.load import data_folder, is_complete
    from lstm_np.data.mnist import FILES, load_mnist
    from lstm_np.data.progress import download_bars

    if find_spec("rich") is None:  # progress bars import it late
        raise ModuleNotFoundError(name="rich")
except ModuleNotFoundError as error:  # this file can be started before anything is installed
    print(f"data_fetch.py: needs {error.name}, which is not installed: pip install -e .", file=sys.stderr)
    raise SystemExit(2) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="data_fetch.py",
        description="Download the four MNIST files and verify them. Files that are there and whole are kept.",
        epilog="Exit status: 0 the files are there and verified, 2 they are not, 130 interrupted.",
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where to put them (default: $LSTM_NP_DATA, else the user's cache folder)"
    )
    parser.add_argument(
        "--mirror", metavar="URL", action="append", help="https address to read from instead (repeatable)"
    )
    parser.add_argument("--offline", action="store_true", help="do not touch the network, only check what is there")
    parser.add_argument("--verify", action="store_true", help="also unpack the files and check every image and label")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    downloaded: set[str] = set()
    try:
        folder = data_folder(arguments.data_dir)
        if not arguments.offline:
            with download_bars(arguments.quiet) as bar:

                def progress(name: str, done: int, total: int) -> None:
                    downloaded.add(name)
                    if bar is not None:
                        bar(name, done, total)

                fetch(folder, arguments.mirror or MIRRORS, progress)
        elif not arguments.verify and not is_complete(folder):
            missing = f"{folder} does not hold the four verified files, and --offline forbids to download them"
            raise DownloadError(missing, folder)
        if arguments.verify:
            dataset = load_mnist(folder)
            if not dataset.verified:
                raise DownloadError(dataset.source, folder)
    except (DownloadError, ValueError) as error:
        print(f"data_fetch.py: {error}", file=sys.stderr)
        if isinstance(error, DownloadError) and not arguments.quiet:
            print(error.help(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("data_fetch.py: interrupted; no half file was left", file=sys.stderr)
        return 130
    if not arguments.quiet:
        print(f"MNIST is in {folder}: {len(FILES)} files, sha256 verified, {len(downloaded)} downloaded now")
    if arguments.json:
        files = [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in FILES]
        print(json.dumps({"folder": str(folder), "verified": True, "downloaded": sorted(downloaded), "files": files}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
