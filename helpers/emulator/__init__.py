"""The local cloud: a server on 127.0.0.1 that speaks the part of Google's REST API that this
project uses, and does the work. `front/` takes the calls, `services/` answers them, `servers/`
holds what runs as another process, `state.py` keeps it all on disk. It imports nothing of the other
helpers; `helpers.connect` alone starts it.
"""
