"""The protocols that come with the daemon, one module each. They are found like any other, by their entry points."""
