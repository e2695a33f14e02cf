"""Google's services, one module each: a handler for every emulated method, and the work behind it.
They may import `front`, `servers`, `state` and each other; `front.app` loads them by name.
"""
