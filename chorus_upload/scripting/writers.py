"""The writers, by shell."""

from __future__ import annotations

from chorus_upload.scripting import bash, cmd
from chorus_upload.scripting.work import Shell, Writer

WRITERS: dict[Shell, Writer] = {Shell.BASH: bash.WRITER, Shell.CMD: cmd.WRITER}
