"""What stands between the socket and the services: who may call (`app`), which method an address
means and whether its request is sound (`discovery`, `rules`), what a handler sees and answers
(`calls`), list filters and faults on request. It imports no service: `app` loads them by name.
The services may import it; nothing else does.
"""
