"""What a model takes and answers: tables, pictures, texts, series; their schema, the built-in data.
Stages, `learning` and `looks` import it. It reads gs:// addresses through `cloud.storage` and knows
no other part of the cloud.
"""
