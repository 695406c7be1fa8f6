"""Parts of the relay process."""
