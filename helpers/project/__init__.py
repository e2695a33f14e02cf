"""What a project has on the cloud: what it needs first, its versions and endpoints, what bills.

Stages and the console's pages use this room; it stands on `cloud`. No job needs it, so a change
here builds no new image.
"""
