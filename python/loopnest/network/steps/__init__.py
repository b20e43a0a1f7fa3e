"""Steps of a network, a file a kind."""
