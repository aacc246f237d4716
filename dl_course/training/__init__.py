"""The engine: a task is one step; Lightning runs it, TensorBoard shows it, checkpoints keep it."""

from dl_course.training.callbacks import build_callbacks, build_logger
from dl_course.training.checkpoints import load_checkpoint
from dl_course.training.meter import Meter
from dl_course.training.metrics import METRICS, Metric
from dl_course.training.regularization import Regularization
from dl_course.training.task import Supervised, Task
from dl_course.training.trainer import build_trainer

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
