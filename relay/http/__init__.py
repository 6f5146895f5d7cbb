"""What every HTTP server here shares: the listening socket, bounds, client addresses, answers."""
