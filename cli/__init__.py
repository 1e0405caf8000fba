"""The `cadenza` command: a module for each of its commands, which imports what is heavy only when it runs."""
