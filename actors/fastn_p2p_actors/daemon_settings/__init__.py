"""Settings of the daemon: command line, environment, ``config.toml`` and defaults.

- ``sections``: the settings as typed structs, and the defaults of each network mode.
- ``catalogue``: key, environment variable, option and allowed values of each setting.
- ``server_urls``: checks of the URLs of relays and directories. ``metrics_address``: where metrics are served.
- ``worker_address``: where workers on other machines connect.
- ``idle_time``: times after which identities fall asleep, as text.
- ``config_file``: reads ``config.toml`` and changes one key in it.
- ``resolution``: chooses each value by precedence, and remembers its source.
"""
