"""`python -m chorus_upload …`, and `python chorus_upload …` in the source directory."""

import os
import sys

if __name__ == "__main__":
    if not __package__:
        # Python was given the directory of the package and has put it first on its path: there our modules would
        # hide others of the same name, and `import chorus_upload` would find nothing. Its parent belongs there.
        package = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not safe to import yet
        sys.path[0] = os.path.dirname(package)  # noqa: PTH120

    from chorus_upload.cli.app import main

    sys.exit(main())
