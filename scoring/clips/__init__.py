"""CLIPs as scorers need them: found by what a config says, loaded from open_clip or transformers, and run alike."""
