"""The `letta` command: a file for each group of commands, `servers` for what serves, `talk` for `letta chat`."""
