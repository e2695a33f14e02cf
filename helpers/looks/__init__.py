"""What people look at: plots, reports of notebooks, model cards, TensorBoard. Stages and the room
`inside` import it; it reads files through `cloud.storage` and knows no other part of the cloud.
"""
