"""What every op stands on: the backend, threads, checks, replay of small calls, work memory."""
