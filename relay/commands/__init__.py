"""The commands of the command line, one subject a file. Only relay/cli.py imports them."""
