"""The engine: a task is one step; Lightning runs it, TensorBoard shows it, checkpoints keep it."""

from dl_course.environment import prepare

prepare()  # before torch and Lightning look for a GPU

from dl_course.training.callbacks import build_callbacks, build_logger  # noqa: E402
from dl_course.training.checkpoints import load_checkpoint  # noqa: E402
from dl_course.training.meter import Meter  # noqa: E402
from dl_course.training.metrics import METRICS, Metric  # noqa: E402
from dl_course.training.regularization import Regularization  # noqa: E402
from dl_course.training.task import Supervised, Task  # noqa: E402
from dl_course.training.trainer import build_trainer  # noqa: E402

__all__ = [
    "METRICS",
    "Meter",
    "Metric",
    "Regularization",
    "Supervised",
    "Task",
    "build_callbacks",
    "build_logger",
    "build_trainer",
    "load_checkpoint",
]
