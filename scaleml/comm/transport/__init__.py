"""Transport: sockets, TLS and shared memory between ranks, and the communicator made of them."""
