"""Commands that need the server; `runstream._cli` lists all commands."""
