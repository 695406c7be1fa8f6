"""Lower the costs before another module reads them."""

from fastn_p2p_actors.vault import age_keys, passphrase

age_keys.WORK_FACTOR = 4  # type: ignore[misc]
passphrase.PRODUCT_COST = passphrase.KEY_COST  # type: ignore[misc]
