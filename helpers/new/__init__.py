"""New projects made from a person's own data, by `python -m helpers.new`; `files` is what they get.
Nothing imports this room; it uses the stages.
"""
