"""Not yet."""

PEERS = ()
