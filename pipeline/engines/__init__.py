"""Where the work is done: Beam's runners by name, worker processes, and one function run over all shards on them."""
