"""Data: sources -> documents -> token shards -> packed sequences -> a loader with a resumable cursor."""
