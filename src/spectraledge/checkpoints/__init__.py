"""From a folder of checkpoints to the same recording that a live run leaves behind."""
