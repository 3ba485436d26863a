"""The commands, one file for each group. To add a group: write its file and one line in `cli/app.py`."""
