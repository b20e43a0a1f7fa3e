"""Not yet."""


def measure(threads):
    return None
