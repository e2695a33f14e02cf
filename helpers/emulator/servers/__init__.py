"""What runs as a process of its own: model servers, the supervisor of a job's replica, a job's pip.
They are started by path and import nothing of this package; TensorFlow is imported by the model
server, and by the process of which servers and jobs are forks. The services start them.
"""

from pathlib import Path

PROGRAMS = Path(__file__).parent
