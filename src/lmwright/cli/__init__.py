"""The command line: one thin file a verb, listed from this folder and imported on use."""
