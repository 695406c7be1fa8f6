"""Built-in protocols, one folder or module each. The daemon finds them by their entry points, like any other."""
