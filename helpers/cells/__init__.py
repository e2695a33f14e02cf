"""What the cells of a notebook say and need: parameters and their form, imports of files beside it,
secrets that must not travel, places on this machine, and the kernel that runs them.

Used by the stages, by `inside` and by `tensorflow_cloud`; knows rooms of the cloud alone.
"""
