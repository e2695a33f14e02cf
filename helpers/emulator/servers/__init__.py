"""What runs as a process of its own: model servers, the supervisor of a job's replica, a job's pip.
They are started by path, import nothing of this package, and only the model server imports
TensorFlow. The services start them.
"""

from pathlib import Path

PROGRAMS = Path(__file__).parent
