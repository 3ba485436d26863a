"""Runs a command and tells in JSON what it took. The command's output is thrown away, its messages are passed on.

A program of its own, and a small one: the kernel hands the memory of whoever starts a command on to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> int:
    begun = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    result = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * MAXRSS_UNIT,
    }
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps(result))
    return abs(process.returncode)


if __name__ == "__main__":
    sys.exit(main())
